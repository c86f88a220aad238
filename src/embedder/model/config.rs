//! The facts in a model's JSON files: its kind, its context, its dimensions, its padding.
//!
//! Hugging Face's `config.json` is of the whole model or of one tower; OpenCLIP's configuration is a file of its own,
//! or the part `model_cfg` of one. A value is looked for wherever one of them has it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::folder::Folder;
use super::preprocessing::Preprocessing;
use crate::text::{Cleaning, Tokenizer};

/// The JSON files of a model that are there.
#[derive(Debug)]
pub(super) struct Config {
    models: Vec<Value>,
    tokenizer: Value,
    preprocessing: Option<Preprocessing>,
}

/// The kind of a model, where it changes how the graphs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ends in projections into the space that images and texts share.
    Clip,
    /// Has no projection of texts or images: the pooled output of its towers is the embedding.
    Siglip,
}

/// The longest context that is believed. Hugging Face writes 10^30 where a tokenizer has no limit.
pub(super) const LONGEST_CONTEXT: u64 = 8192;

impl Config {
    pub(super) fn read(folder: &Folder) -> Result<Config, String> {
        let models: Vec<Value> = folder.configs.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
        let tokenizer = folder.tokenizer_config.as_deref().map(read).transpose()?.unwrap_or_default();
        let mut config = Config { models, tokenizer, preprocessing: None };
        config.preprocessing = config.read_preprocessing(folder)?;
        Ok(config)
    }

    /// The configuration that these values are, without a preprocessing.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of(models: Vec<Value>, tokenizer: Value) -> Config {
        Config { models, tokenizer, preprocessing: None }
    }

    /// SigLIP names itself in Hugging Face's configuration, and has a bias of the logits in OpenCLIP's.
    pub(super) fn kind(&self) -> Kind {
        let names_itself = self
            .find(&["/model_type"])
            .and_then(Value::as_str)
            .is_some_and(|kind| kind.starts_with("siglip"));
        let has_bias = self.find(&["/model_cfg/init_logit_bias", "/init_logit_bias"]).is_some();
        if names_itself || has_bias { Kind::Siglip } else { Kind::Clip }
    }

    /// How images are prepared, where a file says it.
    pub(super) fn preprocessing(&self) -> Option<Preprocessing> {
        self.preprocessing.clone()
    }

    /// The dimensions of the space that images and texts share, where a file says it.
    pub(super) fn projection(&self) -> Option<u64> {
        self.find(&["/projection_dim", "/model_cfg/embed_dim", "/embed_dim"])?.as_u64()
    }

    /// The longest text in tokens, with the start and the end token.
    pub(super) fn context_length(&self) -> Result<usize, String> {
        let said = self.find(&[
            "/text_config/max_position_embeddings",
            "/model_cfg/text_cfg/context_length",
            "/text_cfg/context_length",
            "/max_position_embeddings",
        ]);
        let of_tokenizer =
            || self.tokenizer["model_max_length"].as_u64().filter(|length| *length <= LONGEST_CONTEXT);
        let length = said.and_then(Value::as_u64).or_else(of_tokenizer).unwrap_or(match self.kind() {
            Kind::Clip => 77,
            Kind::Siglip => 64,
        });
        let context_length = (4..=LONGEST_CONTEXT).contains(&length).then_some(length as usize);
        context_length.ok_or(format!("a context length of {length} tokens is not supported"))
    }

    /// The token that fills a text up to the context, where a file says it. CLIP reads nothing after the end token;
    /// SigLIP reads the padding as well, and a text tower of XLM-RoBERTa counts each token that is not its padding.
    pub(super) fn padding_token(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let token = &self.tokenizer["pad_token"];
        let named = token.as_str().or(token["content"].as_str()).and_then(|token| tokenizer.id_of(token));
        named.or_else(|| match self.kind() {
            // In configurations of CLIP this value is the default of their library and not a token. CLIP's own
            // tokenizer has no token of this name.
            Kind::Clip => tokenizer.id_of("<pad>"),
            Kind::Siglip if is_gemma(tokenizer) => tokenizer.id_of("<pad>"),
            Kind::Siglip => {
                let id = self.find(&["/text_config/pad_token_id", "/pad_token_id"]).and_then(Value::as_u64);
                // The default of transformers' SiglipTextConfig.
                Some(id.and_then(|id| u32::try_from(id).ok()).unwrap_or(1))
            }
        })
    }

    /// The cleaning of a text before it is tokenized, where the tokenizer does not do it. OpenCLIP's configuration
    /// has it for models whose tokenizer is from elsewhere; no file of transformers says that SigLIP 2 learnt lower
    /// case.
    pub(super) fn cleaning(&self, tokenizer: &Tokenizer) -> Result<Option<Cleaning>, String> {
        let of_tokenizer = |key: &str| {
            self.find(&[&format!("/model_cfg/text_cfg/{key}"), &format!("/text_cfg/{key}")])
                .and_then(Value::as_str)
        };
        match of_tokenizer("tokenizer_kwargs/clean") {
            Some("whitespace") => Ok(Some(Cleaning::Whitespace)),
            Some("lower") => Ok(Some(Cleaning::Clip)),
            Some("canonicalize") => Ok(Some(Cleaning::Canonical)),
            Some(other) => Err(format!("tokenizer_kwargs.clean = \"{other}\" is not supported")),
            None if of_tokenizer("hf_tokenizer_name").is_some() => Ok(Some(Cleaning::Whitespace)),
            None if self.kind() == Kind::Siglip && is_gemma(tokenizer) => Ok(Some(Cleaning::LowerCase)),
            None => Ok(None),
        }
    }

    fn read_preprocessing(&self, folder: &Folder) -> Result<Option<Preprocessing>, String> {
        let image_size = self.find(&["/model_cfg/vision_cfg/image_size", "/vision_cfg/image_size"]);
        if let Some(path) = &folder.preprocessing {
            let json = read(path)?;
            return Preprocessing::read(&json, image_size).map(Some).map_err(at(path));
        }
        let inside = folder
            .configs
            .iter()
            .zip(&self.models)
            .find_map(|(path, json)| Some((path, json.get("preprocess_cfg")?)));
        inside.map(|(path, json)| Preprocessing::read(json, image_size).map_err(at(path))).transpose()
    }

    fn find(&self, pointers: &[&str]) -> Option<&Value> {
        let values = |pointer| self.models.iter().filter_map(move |json: &Value| json.pointer(pointer));
        pointers.iter().flat_map(|pointer| values(*pointer)).find(|value| !value.is_null())
    }
}

/// Whether a tokenizer is Gemma's, which SigLIP 2 has. The tokenizers of SigLIP know neither token: they end a text
/// with `</s>`, which to Gemma is a tag of HTML.
fn is_gemma(tokenizer: &Tokenizer) -> bool {
    ["<bos>", "<eos>"].iter().all(|token| tokenizer.id_of(token).is_some())
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn at(path: &Path) -> impl Fn(String) -> String {
    move |reason| format!("{}: {reason}", path.display())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(model: Value, tokenizer: Value) -> Config {
        Config::of(vec![model], tokenizer)
    }

    #[test]
    fn values_are_found_in_every_spelling() {
        for (model, tokenizer, context_length, projection) in [
            (
                json!({"text_config": {"max_position_embeddings": 32}, "projection_dim": 512}),
                json!({}),
                32,
                Some(512),
            ),
            (
                json!({"model_cfg": {"text_cfg": {"context_length": 64}, "embed_dim": 768}}),
                json!({}),
                64,
                Some(768),
            ),
            (json!({"text_cfg": {"context_length": 64}, "embed_dim": 768}), json!({}), 64, Some(768)),
            (json!({"max_position_embeddings": 77}), json!({"model_max_length": 20}), 77, None),
            (json!({}), json!({"model_max_length": 52}), 52, None),
            (json!({}), json!({"model_max_length": 1e30}), 77, None),
            (json!({"model_type": "siglip"}), json!({}), 64, None),
        ] {
            let config = config(model, tokenizer);
            assert_eq!(config.context_length(), Ok(context_length), "{config:?}");
            assert_eq!(config.projection(), projection, "{config:?}");
        }
        assert!(config(json!({"max_position_embeddings": 1_000_000}), json!({})).context_length().is_err());
    }

    #[test]
    fn a_siglip_is_known_by_its_configuration() {
        for (json, kind) in [
            (json!({"model_type": "siglip2"}), Kind::Siglip),
            (json!({"model_type": "siglip_vision_model"}), Kind::Siglip),
            (json!({"model_cfg": {"init_logit_bias": -10}}), Kind::Siglip),
            (json!({"model_type": "clip"}), Kind::Clip),
            (json!({}), Kind::Clip),
        ] {
            assert_eq!(config(json.clone(), json!({})).kind(), kind, "{json}");
        }
    }

    fn tokenizer(tokens: &[&str]) -> Tokenizer {
        let vocabulary: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
        let file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "x"}});
        Tokenizer::of(file.to_string().as_bytes(), 8).unwrap()
    }

    #[test]
    fn each_kind_of_tokenizer_has_its_padding_and_its_cleaning() {
        let siglip = || json!({"model_type": "siglip"});
        let xlm_roberta = || json!({"text_cfg": {"hf_tokenizer_name": "xlm-roberta-base"}});
        let canonical = || json!({"model_cfg": {"text_cfg": {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize"}}}});
        let gemma = ["x", "<bos>", "<eos>", "<pad>", "</s>"];
        for (model, of_tokenizer, tokens, padding, cleaning) in [
            (json!({"model_type": "clip"}), json!({"pad_token": "!"}), &["x", "y"][..], None, None),
            (json!({"model_type": "clip"}), json!({"pad_token": "y"}), &["x", "y"], Some(1), None),
            (siglip(), json!({}), &["x", "</s>", "<pad>"], Some(1), None),
            (siglip(), json!({}), &gemma, Some(3), Some(Cleaning::LowerCase)),
            (siglip(), json!({"pad_token": {"content": "</s>"}}), &gemma, Some(4), Some(Cleaning::LowerCase)),
            (xlm_roberta(), json!({}), &["<s>", "x", "<pad>"], Some(2), Some(Cleaning::Whitespace)),
            (canonical(), json!({}), &["x", "<pad>"], Some(1), Some(Cleaning::Canonical)),
        ] {
            let (config, tokenizer) = (config(model, of_tokenizer), tokenizer(tokens));
            assert_eq!(config.padding_token(&tokenizer), padding, "{config:?}");
            assert_eq!(config.cleaning(&tokenizer), Ok(cleaning), "{config:?}");
        }
        let other = config(json!({"text_cfg": {"tokenizer_kwargs": {"clean": "twice"}}}), json!({}));
        assert!(other.cleaning(&tokenizer(&["x"])).unwrap_err().contains("twice"));
    }
}

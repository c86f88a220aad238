//! What a model's JSON files say about preprocessing and context.
//!
//! The two families are Hugging Face's `preprocessor_config.json` (`size`, `crop_size`, `resample`, `image_mean`) and
//! OpenCLIP's `preprocess_cfg.json` (`size`, `interpolation`, `resize_mode`, `mean`). What a file asks for and is not
//! done here is refused: a vector made another way would look right and rank wrong.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Folder;

/// How an image becomes the input of the image tower.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preprocessing {
    pub width: u32,
    pub height: u32,
    pub resize_mode: ResizeMode,
    pub interpolation: Interpolation,
    /// Subtracted from each channel, which ranges from 0 to 1.
    pub mean: [f32; 3],
    /// Divides each channel after the mean was subtracted.
    pub std: [f32; 3],
}

/// How an image of any shape comes to the shape of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResizeMode {
    /// The shorter side to this many pixels, then the middle: CLIP's own.
    Shortest(u32),
    /// Both sides, whatever the aspect ratio: SigLIP's.
    Squash,
}

/// The resampling filter; both with antialias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interpolation {
    /// Bicubic with a = -0.5, as Pillow's.
    Bicubic,
    Bilinear,
}

/// What is known about a text tower from its files.
#[derive(Debug)]
pub(super) struct TextConfig {
    /// The longest text in tokens, with the start and the end token.
    pub context_length: usize,
}

/// CLIP's context length, where no file says another.
const CLIP_CONTEXT_LENGTH: u64 = 77;

/// CLIP's mean and standard deviation: `OPENAI_CLIP_MEAN` and `OPENAI_CLIP_STD` of transformers.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
#[expect(clippy::excessive_precision, reason = "the digits are those that were published")]
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// Reads how images are prepared.
pub(super) fn read_preprocessing(folder: &Folder) -> Result<Preprocessing, String> {
    let json = read(&folder.preprocessing)?;
    preprocessing(&json).map_err(|reason| format!("{}: {reason}", folder.preprocessing.display()))
}

/// Reads what the text tower takes.
pub(super) fn read_text(folder: &Folder) -> Result<TextConfig, String> {
    let json = folder.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let length = [
        "/text_config/max_position_embeddings",
        "/model_cfg/text_cfg/context_length",
        "/text_cfg/context_length",
    ]
    .iter()
    .find_map(|pointer| json.pointer(pointer)?.as_u64())
    .unwrap_or(CLIP_CONTEXT_LENGTH);
    let context_length = usize::try_from(length).ok().filter(|length| (4..=8192).contains(length));
    Ok(TextConfig { context_length: context_length.ok_or(format!("a context length of {length} tokens"))? })
}

fn read(path: &Path) -> Result<Value, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn preprocessing(json: &Value) -> Result<Preprocessing, String> {
    for step in ["do_resize", "do_center_crop", "do_rescale", "do_convert_rgb"] {
        let squashes = step == "do_center_crop" && pair(&json["size"]).is_some();
        if json[step] == false && !squashes {
            return Err(format!("{step} = false is not supported"));
        }
    }
    let (resize_mode, size) = resize(json)?;
    let (width, height) = pair(&json["crop_size"])
        .filter(|_| json["do_center_crop"] != false && resize_mode != ResizeMode::Squash)
        .unwrap_or(size);
    if !(1..=4096).contains(&width) || !(1..=4096).contains(&height) {
        return Err(format!("an image size of {width} x {height} is not supported"));
    }
    if let ResizeMode::Shortest(side) = resize_mode
        && side < width.max(height)
    {
        return Err(format!("a crop of {width} x {height} out of {side} pixels is not supported"));
    }
    let normalize = json["do_normalize"] != false;
    let std = if normalize { channels(json, ["image_std", "std"], CLIP_STD)? } else { [1.0; 3] };
    if std.iter().any(|value| *value <= 0.0) {
        return Err("a standard deviation must be positive".to_owned());
    }
    Ok(Preprocessing {
        width,
        height,
        resize_mode,
        interpolation: interpolation(json)?,
        mean: if normalize { channels(json, ["image_mean", "mean"], CLIP_MEAN)? } else { [0.0; 3] },
        std,
    })
}

fn resize(json: &Value) -> Result<(ResizeMode, (u32, u32)), String> {
    let size = &json["size"];
    let shortest = |side: u32| (ResizeMode::Shortest(side), (side, side));
    if let Some(side) = side(size).or_else(|| side(&size["shortest_edge"])) {
        return Ok(shortest(side));
    }
    let (width, height) = pair(size).ok_or_else(|| format!("size = {size} is not supported"))?;
    match json["resize_mode"].as_str() {
        // OpenCLIP names the mode and writes both sides; Hugging Face writes both sides to mean "squash".
        Some("shortest") if width == height => Ok(shortest(width)),
        Some("squash") | None => Ok((ResizeMode::Squash, (width, height))),
        Some(mode) => Err(format!("resize_mode = \"{mode}\" with size = {size} is not supported")),
    }
}

fn interpolation(json: &Value) -> Result<Interpolation, String> {
    // Pillow's numbers of its filters.
    match (json["resample"].as_u64(), json["interpolation"].as_str()) {
        (Some(3), _) | (None, Some("bicubic") | None) => Ok(Interpolation::Bicubic),
        (Some(2), _) | (None, Some("bilinear")) => Ok(Interpolation::Bilinear),
        (Some(number), _) => Err(format!("resample = {number} is not supported")),
        (None, Some(name)) => Err(format!("interpolation = \"{name}\" is not supported")),
    }
}

fn channels(json: &Value, names: [&str; 2], default: [f32; 3]) -> Result<[f32; 3], String> {
    let Some((name, values)) = names.iter().find_map(|name| Some((name, json.get(name)?.as_array()?))) else {
        return Ok(default);
    };
    let numbers: Option<Vec<f32>> =
        values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect();
    numbers
        .and_then(|numbers| <[f32; 3]>::try_from(numbers).ok())
        .filter(|channels| channels.iter().all(|value| value.is_finite()))
        .ok_or_else(|| format!("{name} must be three numbers"))
}

fn side(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// A width and a height: of one number, of `[height, width]`, or of `{"height": …, "width": …}`.
fn pair(value: &Value) -> Option<(u32, u32)> {
    match value {
        Value::Number(_) => side(value).map(|side| (side, side)),
        Value::Array(sides) => match sides.as_slice() {
            [height, width] => Some((side(width)?, side(height)?)),
            _ => None,
        },
        Value::Object(_) => Some((side(&value["width"])?, side(&value["height"])?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_common_configurations_mean_what_their_libraries_do() {
        let clip = Preprocessing {
            width: 224,
            height: 224,
            resize_mode: ResizeMode::Shortest(224),
            interpolation: Interpolation::Bicubic,
            mean: CLIP_MEAN,
            std: CLIP_STD,
        };
        for json in [
            json!({"size": 224, "crop_size": 224, "resample": 3, "do_normalize": true}),
            json!({"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3}),
            json!({"size": [224, 224], "interpolation": "bicubic", "resize_mode": "shortest"}),
        ] {
            assert_eq!(preprocessing(&json).as_ref(), Ok(&clip), "{json}");
        }
        let siglip = json!({
            "size": {"height": 224, "width": 224}, "resample": 3,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]
        });
        assert_eq!(
            preprocessing(&siglip),
            Ok(Preprocessing { resize_mode: ResizeMode::Squash, mean: [0.5; 3], std: [0.5; 3], ..clip })
        );
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for json in [
            json!({}),
            json!({"size": 0}),
            json!({"size": 100_000}),
            json!({"size": 224, "resample": 1}),
            json!({"size": 224, "do_rescale": false}),
            json!({"size": 224, "crop_size": 256}),
            json!({"size": 224, "image_std": [1, 1]}),
            json!({"size": 224, "image_std": [1, 1, 0]}),
            json!({"size": [224, 224], "resize_mode": "longest"}),
        ] {
            assert!(preprocessing(&json).is_err(), "{json}");
        }
    }
}

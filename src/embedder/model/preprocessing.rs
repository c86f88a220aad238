//! How an image becomes the input of an image tower, as a model's files say it.
//!
//! There are two families: Hugging Face's `preprocessor_config.json` (`size`, `crop_size`, `resample`,
//! `image_mean`), and OpenCLIP's `preprocess_cfg`, a file or a part of one (`size`, `interpolation`, `resize_mode`,
//! `mean`). A step that a file asks for and this code does not do is refused: a vector made another way would look
//! right and rank wrong.

use serde_json::Value;

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
    /// Both sides to this many pixels, for any aspect ratio: SigLIP's.
    Squash,
}

/// The resampling filter; both with antialias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interpolation {
    /// Bicubic with a = -0.5, as Pillow's.
    Bicubic,
    Bilinear,
}

/// CLIP's mean and standard deviation: `OPENAI_CLIP_MEAN` and `OPENAI_CLIP_STD` of transformers.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
#[expect(clippy::excessive_precision, reason = "the digits are those that were published")]
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// The image sizes of OpenAI's CLIP models.
const CLIP_SIZES: [u32; 5] = [224, 288, 336, 384, 448];

impl Preprocessing {
    /// Reads a preprocessing of either family. `image_size` is the size in the model's configuration beside it.
    pub(super) fn read(json: &Value, image_size: Option<&Value>) -> Result<Preprocessing, String> {
        let is_open_clip = ["mean", "interpolation", "resize_mode"].iter().any(|key| json.get(key).is_some());
        let read = if is_open_clip { open_clip(json, image_size)? } else { hugging_face(json)? };
        if !(1..=4096).contains(&read.width) || !(1..=4096).contains(&read.height) {
            return Err(format!("an image size of {} x {} is not supported", read.width, read.height));
        }
        if let ResizeMode::Shortest(side) = read.resize_mode
            && !(read.width.max(read.height)..=4096).contains(&side)
        {
            return Err(format!(
                "a crop of {} x {} out of {side} pixels is not supported",
                read.width, read.height
            ));
        }
        if read.std.iter().any(|value| *value <= 0.0) {
            return Err("a standard deviation must be positive".to_owned());
        }
        Ok(read)
    }

    /// CLIP's own, for a model without a preprocessing that takes images of a size that OpenAI's CLIP models take.
    pub(super) fn of_clip(width: u32, height: u32) -> Option<Preprocessing> {
        (width == height && CLIP_SIZES.contains(&width)).then_some(Preprocessing {
            width,
            height,
            resize_mode: ResizeMode::Shortest(width),
            interpolation: Interpolation::Bicubic,
            mean: CLIP_MEAN,
            std: CLIP_STD,
        })
    }

    /// The same, with values that stay in 0..255 for a graph that normalises by itself.
    pub(super) fn into_bytes(self) -> Preprocessing {
        Preprocessing { mean: [0.0; 3], std: [1.0 / 255.0; 3], ..self }
    }
}

fn hugging_face(json: &Value) -> Result<Preprocessing, String> {
    let size = &json["size"];
    let processor = json["image_processor_type"].as_str().or(json["feature_extractor_type"].as_str());
    // CLIP's processors crop the middle unless they are told not to, SigLIP's and ViT's never do.
    let crops = processor.is_none_or(|name| name.contains("CLIP"));
    let shortest = side(&size["shortest_edge"]).or_else(|| side(size).filter(|_| crops));
    for step in ["do_resize", "do_rescale", "do_convert_rgb"] {
        if json[step] == false {
            return Err(format!("{step} = false is not supported"));
        }
    }
    if shortest.is_some() && json["do_center_crop"] == false {
        return Err("do_center_crop = false is not supported where size is the shortest edge".to_owned());
    }
    if let Some(factor) = json["rescale_factor"].as_f64().filter(|factor| (factor * 255.0 - 1.0).abs() > 1e-6)
    {
        return Err(format!("rescale_factor = {factor} is not supported"));
    }
    let (resize_mode, whole) = match (shortest, pair(size)) {
        (Some(side), _) => (ResizeMode::Shortest(side), (side, side)),
        (None, Some(sides)) => (ResizeMode::Squash, sides),
        (None, None) => return Err(format!("size = {size} is not supported")),
    };
    let (width, height) = match pair(&json["crop_size"]) {
        Some(crop) if shortest.is_some() => crop,
        Some(crop) if json["do_center_crop"] == true && crop != whole => {
            return Err(format!("a crop_size of {} after size = {size} is not supported", json["crop_size"]));
        }
        _ => whole,
    };
    let interpolation = match json.get("resample").map(Value::as_u64) {
        // Pillow's numbers of its filters.
        Some(Some(3)) | None => Interpolation::Bicubic,
        Some(Some(2)) => Interpolation::Bilinear,
        Some(_) => return Err(format!("resample = {} is not supported", json["resample"])),
    };
    let normalizes = json["do_normalize"] != false;
    Ok(Preprocessing {
        width,
        height,
        resize_mode,
        interpolation,
        mean: if normalizes { channels(json, "image_mean", CLIP_MEAN)? } else { [0.0; 3] },
        std: if normalizes { channels(json, "image_std", CLIP_STD)? } else { [1.0; 3] },
    })
}

fn open_clip(json: &Value, image_size: Option<&Value>) -> Result<Preprocessing, String> {
    let size = json.get("size").or(image_size).unwrap_or(&Value::Null);
    let (width, height) = pair(size).ok_or_else(|| format!("size = {size} is not supported"))?;
    let resize_mode = match json["resize_mode"].as_str() {
        None | Some("shortest") if width == height => ResizeMode::Shortest(width),
        Some("squash") => ResizeMode::Squash,
        mode => {
            let mode = mode.unwrap_or("shortest");
            return Err(format!("resize_mode = \"{mode}\" with size = {size} is not supported"));
        }
    };
    let interpolation = match json["interpolation"].as_str() {
        None | Some("bicubic") => Interpolation::Bicubic,
        Some("bilinear") => Interpolation::Bilinear,
        Some(name) => return Err(format!("interpolation = \"{name}\" is not supported")),
    };
    Ok(Preprocessing {
        width,
        height,
        resize_mode,
        interpolation,
        mean: channels(json, "mean", CLIP_MEAN)?,
        std: channels(json, "std", CLIP_STD)?,
    })
}

fn channels(json: &Value, name: &str, default: [f32; 3]) -> Result<[f32; 3], String> {
    let Some(values) = json.get(name) else { return Ok(default) };
    let numbers: Option<Vec<f32>> = values
        .as_array()
        .and_then(|values| values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect());
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
    fn the_common_configurations_mean_the_same_as_in_their_libraries() {
        let clip = Preprocessing::of_clip(224, 224).unwrap();
        let siglip =
            Preprocessing { resize_mode: ResizeMode::Squash, mean: [0.5; 3], std: [0.5; 3], ..clip.clone() };
        let mobileclip = Preprocessing {
            width: 256,
            height: 256,
            resize_mode: ResizeMode::Shortest(256),
            interpolation: Interpolation::Bilinear,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        let half = json!([0.5, 0.5, 0.5]);
        for (json, expected) in [
            (json!({"size": 224, "crop_size": 224, "resample": 3, "do_normalize": true}), &clip),
            (json!({"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}), &clip),
            (json!({"size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}), &clip),
            (json!({"size": [224, 224], "interpolation": "bicubic", "resize_mode": "shortest"}), &clip),
            (json!({"mean": CLIP_MEAN, "std": CLIP_STD}), &clip),
            (json!({"size": {"height": 224, "width": 224}, "image_mean": half, "image_std": half}), &siglip),
            (
                json!({"size": 224, "image_processor_type": "SiglipImageProcessor", "image_mean": half,
                    "image_std": half}),
                &siglip,
            ),
            (json!({"size": 224, "resize_mode": "squash", "mean": half, "std": half}), &siglip),
            (
                json!({"size": {"shortest_edge": 256}, "crop_size": 256, "resample": 2, "do_normalize": false}),
                &mobileclip,
            ),
        ] {
            assert_eq!(Preprocessing::read(&json, Some(&json!(224))).as_ref(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn a_preprocessing_that_is_not_supported_is_refused() {
        for json in [
            json!({}),
            json!({"size": 0}),
            json!({"size": 100_000}),
            json!({"size": {"shortest_edge": 100_000}, "crop_size": 224}),
            json!({"size": 224, "resample": 1}),
            json!({"size": 224, "resample": "bicubic"}),
            json!({"size": 224, "do_rescale": false}),
            json!({"size": 224, "rescale_factor": 1}),
            json!({"size": 224, "do_center_crop": false}),
            json!({"size": 224, "crop_size": 256}),
            json!({"size": {"height": 256, "width": 256}, "do_center_crop": true, "crop_size": 224}),
            json!({"size": 224, "image_std": [1, 1]}),
            json!({"size": 224, "image_std": [1, 1, 0]}),
            json!({"size": 224, "image_mean": "mean"}),
            json!({"size": [224, 224], "resize_mode": "longest"}),
            json!({"size": [224, 256], "resize_mode": "shortest"}),
            json!({"size": 224, "interpolation": "random"}),
            json!({"mean": CLIP_MEAN}),
        ] {
            assert!(Preprocessing::read(&json, None).is_err(), "{json}");
        }
    }

    #[test]
    fn clips_own_preprocessing_is_for_clips_own_sizes() {
        assert!(Preprocessing::of_clip(336, 336).is_some());
        assert_eq!(Preprocessing::of_clip(256, 256), None);
        assert_eq!(Preprocessing::of_clip(224, 336), None);
    }
}

//! The demo's page: one file of HTML that needs nothing else.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::demo::photos::Photo;

pub(super) struct Page<'a> {
    photos: HashMap<String, &'a Photo>,
    sections: String,
}

impl<'a> Page<'a> {
    pub(super) fn new(photos: &'a [Photo]) -> Page<'a> {
        Page {
            photos: photos.iter().map(|photo| (photo.file.clone(), photo)).collect(),
            sections: String::new(),
        }
    }

    /// Makes a photo known by another name too.
    pub(super) fn add_copy(&mut self, name: &str, photo: &'a Photo) {
        self.photos.insert(name.to_owned(), photo);
    }

    /// Adds a search: its SQL, the picture that was searched with, and the rows that it found.
    pub(super) fn add(
        &mut self,
        title: &str,
        sql: &str,
        picture: Option<&Photo>,
        rows: &[Map<String, Value>],
    ) {
        let picture = picture.map(|photo| format!("<p>{}</p>\n", thumbnail(photo))).unwrap_or_default();
        let found: String = rows.iter().map(|row| self.found(row)).collect();
        self.sections += &format!(
            "<section>\n<h2>{}</h2>\n{picture}<pre>{}</pre>\n<div class=\"found\">\n{found}</div>\n</section>\n",
            escape(title),
            escape(sql)
        );
    }

    pub(super) fn finish(self) -> String {
        format!("{HEAD}{}</body>\n</html>\n", self.sections)
    }

    fn found(&self, row: &Map<String, Value>) -> String {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let similarity = row.get("similarity").and_then(Value::as_f64).unwrap_or_default();
        let photo = self.photos.get(text("file_name")).map(|photo| thumbnail(photo)).unwrap_or_default();
        format!(
            "<figure>{photo}<figcaption><b>{similarity:.3}</b> {}<br>{}</figcaption></figure>\n",
            escape(text("file_name")),
            escape(text("project"))
        )
    }
}

fn thumbnail(photo: &Photo) -> String {
    let kind = match photo.file.rsplit_once('.') {
        Some((_, "png")) => "png",
        Some((_, "webp")) => "webp",
        _ => "jpeg",
    };
    let bytes = STANDARD.encode(&photo.bytes);
    format!("<img alt=\"{}\" src=\"data:image/{kind};base64,{bytes}\">", escape(&photo.file))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>pg_clip: photo search in SQL</title>
<style>
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; color: #222; background: #fff; }
section { margin: 3rem 0; }
h2 { font-size: 1.2rem; }
pre { padding: 1rem; overflow-x: auto; font-size: .85rem; background: #f4f4f2; border-radius: .4rem; }
img { width: 9rem; height: 9rem; object-fit: cover; border-radius: .4rem; }
.found { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { width: 9rem; margin: 0; font-size: .8rem; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Photo search in SQL</h1>
<p>Each photo was embedded by the trigger of its table. Under each query stands what it found, nearest first, with the cosine similarity.</p>
"#;

#[cfg(test)]
mod tests {
    use super::{Page, Photo};

    #[test]
    fn shows_the_found_photos_and_escapes_their_names() {
        let photos = [Photo {
            file: "a<b.png".into(),
            concept: String::new(),
            project: "x & y".into(),
            bytes: vec![1, 2, 3],
        }];
        let mut page = Page::new(&photos);
        let row = serde_json::json!({"file_name": "a<b.png", "project": "x & y", "similarity": 0.25});
        page.add("words", "SELECT '<'", None, &[row.as_object().expect("an object").clone()]);
        let page = page.finish();
        assert!(page.contains("data:image/png;base64,AQID"));
        assert!(page.contains("<pre>SELECT '&lt;'</pre>"));
        assert!(page.contains("<b>0.250</b> a&lt;b.png<br>x &amp; y"));
    }
}

//! A sheet as a self-contained HTML page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;

use super::{HEADINGS, Row};
use crate::Error;
use crate::vision::explain::maps::encoded;

const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
section { margin: 0 0 2rem; }
.cells { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; }
figcaption { font-size: 13px; opacity: 0.7; }
img { border: 1px solid #8884; display: block; image-rendering: pixelated; max-width: 100%; }
";

/// An HTML page with one section per row and embedded pictures.
///
/// # Errors
/// [`Error::Encode`] if a picture cannot be encoded.
pub fn page(title: &str, rows: &[Row]) -> Result<String, Error> {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for row in rows {
        let caption = escaped(&row.caption_with_scale());
        page.push_str(&format!(
            "<section>\n<p>{caption}</p>\n<div class=\"cells\">\n"
        ));
        for (heading, cell) in HEADINGS.iter().zip(&row.cells) {
            page.push_str(&figure(heading, cell)?);
        }
        page.push_str("</div>\n</section>\n");
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn figure(heading: &str, cell: &RgbImage) -> Result<String, Error> {
    let data = STANDARD.encode(encoded(cell)?);
    let (width, height) = cell.dimensions();
    Ok(format!(
        "<figure><img width=\"{width}\" height=\"{height}\" alt=\"{heading}\" src=\"data:image/png;base64,{data}\">\
         <figcaption>{heading}</figcaption></figure>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

//! Many explanations side by side: a row each of the picture, the colour picture and the contribution map.

mod html;
mod png;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage, Rgba};

use super::maps::rgb;
use super::{Explained, Explanation};

pub use html::page;
pub use png::sheet;

/// Column headings.
const HEADINGS: [&str; 3] = ["picture", "W(x) in colour", "contributions"];

/// Small pictures are enlarged by whole factors to about this many pixels.
const SIDE: u32 = 224;

/// One explanation, drawn.
#[derive(Clone, Debug)]
pub struct Row {
    /// Caption: picture, class, logit, residual.
    pub caption: String,
    /// The contribution at full colour.
    pub strongest: f64,
    cells: [RgbImage; 3],
}

impl Row {
    /// Draws an explanation of a picture. `None` if the model's channels cannot be drawn.
    pub fn of(caption: String, explained: &Explained, explanation: &Explanation) -> Option<Self> {
        let mut picture = RgbImage::new(explanation.size[1] as u32, explanation.size[0] as u32);
        let colours = explanation.picture()?;
        for (below, above) in picture.pixels_mut().zip(colours.pixels()) {
            *below = on_white(*above);
        }
        let (map, strongest) = explanation.contribution_map()?;
        let cells = [rgb(&explained.image)?, picture, map];
        Some(Row {
            caption,
            strongest,
            cells: cells.map(enlarged),
        })
    }

    fn caption_with_scale(&self) -> String {
        format!(
            "{}; full red and blue: {:.1e}",
            self.caption, self.strongest
        )
    }
}

fn on_white(Rgba([r, g, b, alpha]): Rgba<u8>) -> Rgb<u8> {
    let alpha = u32::from(alpha);
    Rgb([r, g, b].map(|c| ((u32::from(c) * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
}

fn enlarged(cell: RgbImage) -> RgbImage {
    let (width, height) = cell.dimensions();
    let factor = SIDE / width.max(height).max(1);
    match factor {
        0 | 1 => cell,
        factor => imageops::resize(&cell, width * factor, height * factor, FilterType::Nearest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Images;

    fn row() -> Row {
        let explanation = Explanation {
            class: 0,
            logit: 1.0,
            probability: None,
            logit_bias: 0.0,
            contribution: 1.0,
            residual: 0.0,
            logits: vec![1.0],
            weights: vec![1.0; 3 * 4],
            channels: 3,
            contributions: vec![1.0, 0.0, -0.5, 0.25],
            size: [2, 2],
        };
        let explained = Explained {
            image: Images {
                dims: vec![1, 3, 2, 2],
                data: vec![0.5; 12],
            },
            explanations: vec![explanation.clone()],
        };
        Row::of("a <b> & \"c\"".to_owned(), &explained, &explanation).unwrap()
    }

    #[test]
    fn a_sheet_holds_its_rows() {
        let sheet = sheet(&[row(), row()]).unwrap();
        let many = super::png::sheet(&vec![row(); 40]).unwrap();
        assert!(many.height() < 2 * many.width() + SIDE && many.width() < many.height());
        // The last column's first pixel is the strongest contribution, the next is none.
        let reds = sheet.pixels().filter(|p| p.0 == [255, 0, 0]).count();
        assert!(reds >= 2 * (SIDE as usize / 2).pow(2), "{reds}");
        assert!(png::sheet(&[]).is_none());
    }

    #[test]
    fn a_page_escapes_what_it_is_given() {
        let page = page("m.onnx", &[row()]).unwrap();
        assert!(page.contains("a &lt;b&gt; &amp; &quot;c&quot;"), "{page}");
        assert_eq!(page.matches("data:image/png;base64,").count(), 3);
        assert!(!page.contains("http"));
    }
}

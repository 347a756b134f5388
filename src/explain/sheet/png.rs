//! A sheet as one picture.

use std::convert::Infallible;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_7X13;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Point, Size};
use embedded_graphics::text::{Baseline, Text};
use image::imageops::{overlay, replace};
use image::{Rgb, RgbImage};

use super::{HEADINGS, Row};

/// Pixels between cells.
const GAP: u32 = 8;
/// Height of a line of text.
const LINE: u32 = 13;
/// Width of a character.
const CHARACTER: u32 = 7;

/// Draws rows below each other. `None` where there are none.
pub fn sheet(rows: &[Row]) -> Option<RgbImage> {
    let widest = rows.iter().map(|row| row.cells[0].width()).max()?;
    let width = GAP + HEADINGS.len() as u32 * (widest + GAP);
    let captions: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            wrapped(
                &row.caption_with_scale(),
                ((width - 2 * GAP) / CHARACTER) as usize,
            )
        })
        .collect();
    let row_height =
        |i: usize| captions[i].len() as u32 * LINE + GAP / 2 + rows[i].cells[0].height() + 2 * GAP;
    let height = GAP + LINE + GAP + (0..rows.len()).map(row_height).sum::<u32>();
    let mut canvas = Canvas(RgbImage::from_pixel(width, height, Rgb([255; 3])));
    let left = |column: usize| GAP + column as u32 * (widest + GAP);
    for (column, heading) in HEADINGS.iter().enumerate() {
        canvas.write(heading, left(column), GAP);
    }
    let mut top = GAP + LINE + GAP;
    for (i, row) in rows.iter().enumerate() {
        let mut y = top;
        for line in &captions[i] {
            canvas.write(line, GAP, y);
            y += LINE;
        }
        y += GAP / 2;
        for (column, cell) in row.cells.iter().enumerate() {
            let x = i64::from(left(column));
            let frame = RgbImage::from_pixel(cell.width() + 2, cell.height() + 2, Rgb([208; 3]));
            overlay(&mut canvas.0, &frame, x - 1, i64::from(y) - 1);
            replace(&mut canvas.0, cell, x, i64::from(y));
        }
        top += row_height(i);
    }
    Some(canvas.0)
}

/// Lines of at most so many characters, broken between words where there are any.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = match lines.last_mut() {
                Some(line) => line,
                None => return lines,
            };
            let used = line.chars().count();
            let space = usize::from(used > 0);
            if used + space + word.len() <= columns {
                line.extend(std::iter::repeat_n(' ', space).chain(word));
                break;
            }
            if used == 0 {
                let rest = word.split_off(columns.max(1).min(word.len()));
                line.extend(word);
                word = rest;
                if word.is_empty() {
                    break;
                }
            }
            lines.push(String::new());
        }
    }
    lines
}

/// A picture that text can be drawn on.
struct Canvas(RgbImage);

impl Canvas {
    fn write(&mut self, text: &str, x: u32, y: u32) {
        let style = MonoTextStyle::new(&FONT_7X13, Rgb888::BLACK);
        let at = Point::new(x as i32, y as i32);
        let drawn = Text::with_baseline(text, at, style, Baseline::Top).draw(self);
        match drawn {
            Ok(_) => {}
            Err(never) => match never {},
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = embedded_graphics::Pixel<Rgb888>>,
    {
        for embedded_graphics::Pixel(Point { x, y }, colour) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                && let Some(pixel) = self.0.get_pixel_mut_checked(x, y)
            {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}

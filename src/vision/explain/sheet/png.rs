//! A sheet as a PNG picture.

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

/// Maximum ratio of height to width before rows are split into another column.
const TALLEST: u32 = 2;

/// Draws rows below each other, in as many columns as make the sheet a handy shape. `None` if there are
/// no rows.
pub fn sheet(rows: &[Row]) -> Option<RgbImage> {
    let cell = |side: fn(&RgbImage) -> u32| rows.iter().map(|row| side(&row.cells[0])).max();
    let (cell_width, cell_height) = (cell(RgbImage::width)?, cell(RgbImage::height)?);
    let width = HEADINGS.len() as u32 * (cell_width + GAP);
    let columns_of_text = ((width - GAP) / CHARACTER) as usize;
    let captions: Vec<Vec<String>> = rows
        .iter()
        .map(|row| wrapped(&row.caption_with_scale(), columns_of_text))
        .collect();
    let lines = captions.iter().map(Vec::len).max()? as u32;
    let height = lines * LINE + GAP / 2 + cell_height + 2 * GAP;
    let count = rows.len() as u32;
    let tall = |columns: u32| count.div_ceil(columns) * height > TALLEST * columns * width;
    let columns = (1..count).find(|columns| !tall(*columns)).unwrap_or(count);
    let down = count.div_ceil(columns);

    let top = GAP + LINE + GAP;
    let size = (GAP + columns * (width + GAP), top + down * height);
    let mut canvas = Canvas(RgbImage::from_pixel(size.0, size.1, Rgb([255; 3])));
    for (i, (row, caption)) in rows.iter().zip(&captions).enumerate() {
        let (column, line) = (i as u32 / down, i as u32 % down);
        let left = |cell: usize| GAP + column * (width + GAP) + cell as u32 * (cell_width + GAP);
        let mut y = top + line * height;
        if line == 0 {
            for (cell, heading) in HEADINGS.iter().enumerate() {
                canvas.write(heading, left(cell), GAP);
            }
        }
        for (line, text) in caption.iter().enumerate() {
            canvas.write(text, left(0), y + line as u32 * LINE);
        }
        y += lines * LINE + GAP / 2;
        for (cell, picture) in row.cells.iter().enumerate() {
            let (x, y) = (i64::from(left(cell)), i64::from(y));
            let frame = (picture.width() + 2, picture.height() + 2);
            let frame = RgbImage::from_pixel(frame.0, frame.1, Rgb([208; 3]));
            overlay(&mut canvas.0, &frame, x - 1, y - 1);
            replace(&mut canvas.0, picture, x, y);
        }
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

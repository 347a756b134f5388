//! Which pixels are taken: shifts, flips and random regions.

use rand::RngExt;

use crate::vision::images::{Pixels, Region};

/// Number of random regions that are tried.
const TRIES: usize = 10;

/// What is around a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Black: 0 before the input is encoded, so x and 1-x still add up to 1.
    #[default]
    Zeros,
    /// The picture mirrored at its outermost pixels.
    Reflect,
}

/// The picture moved down and right, in a frame that stays.
pub(super) fn shifted(pixels: &Pixels, [down, right]: [i64; 2], padding: Padding) -> Pixels {
    let &Pixels {
        channels,
        height,
        width,
        ..
    } = pixels;
    let row_bytes = width * channels;
    let mut data = vec![0; pixels.data.len()];
    // The columns that the picture covers, and where they come from.
    let (to, from) = (right.max(0) as usize, (-right).max(0) as usize);
    let covered = width.saturating_sub(right.unsigned_abs() as usize);
    for (y, row) in data.chunks_exact_mut(row_bytes.max(1)).enumerate() {
        let Some(from_row) = origin(y, down, height, padding) else {
            continue;
        };
        let source = &pixels.data[from_row * row_bytes..][..row_bytes];
        if covered > 0 {
            let length = covered * channels;
            row[to * channels..][..length].copy_from_slice(&source[from * channels..][..length]);
        }
        if padding == Padding::Reflect {
            for x in (0..to.min(width)).chain(to + covered..width) {
                if let Some(at) = origin(x, right, width, padding) {
                    row[x * channels..][..channels]
                        .copy_from_slice(&source[at * channels..][..channels]);
                }
            }
        }
    }
    Pixels { data, ..*pixels }
}

/// The place along an axis whose pixel moves to `to`.
fn origin(to: usize, moved: i64, length: usize, padding: Padding) -> Option<usize> {
    let last = length as i64 - 1;
    let from = to as i64 - moved;
    match (padding, (0..=last).contains(&from)) {
        (_, true) => Some(from as usize),
        (Padding::Zeros, false) => None,
        (Padding::Reflect, false) => {
            let mirrored = if from < 0 { -from } else { 2 * last - from };
            usize::try_from(mirrored).ok().filter(|x| *x < length)
        }
    }
}

/// Exchanges left and right.
pub(super) fn flip(pixels: &mut Pixels) {
    let (channels, width) = (pixels.channels, pixels.width);
    for row in pixels.data.chunks_exact_mut((width * channels).max(1)) {
        match channels {
            3 => row.as_chunks_mut::<3>().0.reverse(),
            _ => row.reverse(),
        }
    }
}

/// A region of random size, shape and place: the area's share is uniform in `scale`, and the logarithm of the aspect ratio
/// uniform between those of `ratio`. If ten of them do not fit into the picture, the largest central region with an allowed
/// aspect ratio.
pub(super) fn random_region(
    pixels: &Pixels,
    scale: [f64; 2],
    ratio: [f64; 2],
    rng: &mut impl RngExt,
) -> Region {
    let size = [pixels.height, pixels.width];
    for _ in 0..TRIES {
        let share = rng.random_range(scale[0]..=scale[1]);
        let aspect = rng.random_range(ratio[0].ln()..=ratio[1].ln()).exp();
        if let Some([height, width]) = region_size(size, share, aspect) {
            return Region {
                top: rng.random_range(0..=size[0] - height),
                left: rng.random_range(0..=size[1] - width),
                height,
                width,
            };
        }
    }
    central_region(size, ratio)
}

/// Height and width of a region with a share of the area and an aspect ratio, if it fits.
pub(super) fn region_size(
    [height, width]: [usize; 2],
    share: f64,
    aspect: f64,
) -> Option<[usize; 2]> {
    let area = (height * width) as f64 * share;
    let sides = [(area / aspect).sqrt(), (area * aspect).sqrt()];
    let [high, wide] = sides.map(|side| side.round_ties_even() as usize);
    let fits = (1..=height).contains(&high) && (1..=width).contains(&wide);
    fits.then_some([high, wide])
}

/// The largest central region with an allowed aspect ratio.
pub(super) fn central_region([height, width]: [usize; 2], ratio: [f64; 2]) -> Region {
    let aspect = width as f64 / height as f64;
    let rounded = |side: f64, limit: usize| (side.round_ties_even() as usize).clamp(1, limit);
    let [high, wide] = if aspect < ratio[0] {
        [rounded(width as f64 / ratio[0], height), width]
    } else if aspect > ratio[1] {
        [height, rounded(height as f64 * ratio[1], width)]
    } else {
        [height, width]
    };
    Region {
        top: (height - high) / 2,
        left: (width - wide) / 2,
        height: high,
        width: wide,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vision::random::rng;

    fn row(values: &[u8]) -> Pixels {
        Pixels {
            channels: 1,
            height: 1,
            width: values.len(),
            data: values.to_vec(),
        }
    }

    proptest! {
        #[test]
        fn regions_are_inside(
            height in 1usize..400,
            width in 1usize..400,
            low in 0.001f64..1.0,
            wide in 1.0f64..20.0,
            seed: u64,
        ) {
            let pixels = Pixels { channels: 1, height, width, data: Vec::new() };
            let found = random_region(&pixels, [low, 1.0], [1.0 / wide, wide], &mut rng(seed, &[]));
            prop_assert!(found.height >= 1 && found.top + found.height <= height, "{found:?}");
            prop_assert!(found.width >= 1 && found.left + found.width <= width, "{found:?}");
        }

        #[test]
        fn every_shift_takes_pixels_from_where_they_were(
            height in 1usize..6,
            width in 1usize..6,
            channels in prop_oneof![Just(1usize), Just(3)],
            down in -5i64..=5,
            right in -5i64..=5,
        ) {
            let data: Vec<u8> = (1..=(height * width * channels) as u8).collect();
            let before = Pixels { channels, height, width, data };
            let after = shifted(&before, [down, right], Padding::Zeros);
            for y in 0..height {
                for x in 0..width {
                    let (from_y, from_x) = (y as i64 - down, x as i64 - right);
                    let inside = (0..height as i64).contains(&from_y) && (0..width as i64).contains(&from_x);
                    for c in 0..channels {
                        let expected = match inside {
                            true => before.data[((from_y as usize) * width + from_x as usize) * channels + c],
                            false => 0,
                        };
                        prop_assert_eq!(after.data[(y * width + x) * channels + c], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_region_covers_the_whole_range_of_places() {
        let pixels = Pixels {
            channels: 1,
            height: 4,
            width: 4,
            data: Vec::new(),
        };
        let tops = (0..200).map(|seed| {
            let region = random_region(&pixels, [0.25; 2], [1.0; 2], &mut rng(seed, &[]));
            assert_eq!((region.height, region.width), (2, 2));
            region.top
        });
        let tops: std::collections::BTreeSet<usize> = tops.collect();
        assert_eq!(Vec::from_iter(tops), [0, 1, 2]);
    }

    #[test]
    fn a_flip_keeps_colours_together() {
        let mut pixels = Pixels {
            channels: 3,
            height: 2,
            width: 2,
            data: (0..12).collect(),
        };
        flip(&mut pixels);
        assert_eq!(pixels.data, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
    }

    #[test]
    fn reflection_leaves_out_the_edge() {
        let moved = |by| shifted(&row(&[1, 2, 3, 4]), [0, by], Padding::Reflect).data;
        assert_eq!(moved(2), [3, 2, 1, 2]);
        assert_eq!(moved(-3), [4, 3, 2, 1]);
    }
}

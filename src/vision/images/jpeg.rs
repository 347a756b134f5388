//! Detection of truncated JPEG files. The decoder fills the missing part with grey, which would be explained
//! like the rest.

const MARKER: u8 = 0xff;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;

/// Whether the bytes are those of a JPEG file that ends before its end marker.
pub fn is_cut_short(bytes: &[u8]) -> bool {
    let [MARKER, START_OF_IMAGE, rest @ ..] = bytes else {
        return false;
    };
    reaches_end(rest).is_none()
}

/// Goes from segment to segment, so that the end of a thumbnail inside is not taken for that of the picture.
fn reaches_end(mut rest: &[u8]) -> Option<()> {
    loop {
        let at = rest
            .windows(2)
            .position(|pair| pair[0] == MARKER && is_segment(pair[1]))?;
        let marker = rest[at + 1];
        if marker == END_OF_IMAGE {
            return Some(());
        }
        rest = &rest[at + 2..];
        let length = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
        rest = rest.get(length..)?;
    }
}

/// Whether what follows 0xff begins a segment or ends the picture: not an escaped 0xff, a restart or padding.
fn is_segment(byte: u8) -> bool {
    !matches!(byte, 0x00 | 0x01 | 0xd0..=0xd7 | MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg() -> Vec<u8> {
        let picture =
            image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8, 9]));
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture
            .write_to(&mut bytes, image::ImageFormat::Jpeg)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_prefix_is_cut_short() {
        let whole = jpeg();
        assert!(!is_cut_short(&whole));
        for length in 2..whole.len() {
            assert!(is_cut_short(&whole[..length]), "{length}");
        }
    }

    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end() {
        let mut whole = jpeg();
        let thumbnail = [0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
        whole.splice(2..2, thumbnail);
        assert!(!is_cut_short(&whole));
        assert!(is_cut_short(&whole[..whole.len() - 2]));
        whole.extend(b"trailing");
        assert!(!is_cut_short(&whole));
    }

    proptest::proptest! {
        /// For any bytes between the markers, and any declared lengths of segments.
        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            let start = [MARKER, START_OF_IMAGE];
            is_cut_short(&[&start[..], &bytes].concat());
            let whole = [&start[..], &[MARKER, 0xe1, 0, 2], &[MARKER, END_OF_IMAGE], &bytes].concat();
            proptest::prop_assert!(!is_cut_short(&whole));
        }
    }

    #[test]
    fn other_files_are_left_to_their_decoders() {
        assert!(!is_cut_short(b"\x89PNG"));
        assert!(!is_cut_short(b""));
    }
}

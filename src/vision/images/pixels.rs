//! Decoded pictures.

use crate::contract::Images;

/// A picture of 8 bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pixels {
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// `[height, width, channels]`.
    pub data: Vec<u8>,
}

impl Pixels {
    /// The values of one channel, row by row.
    pub fn plane(&self, channel: usize) -> impl Iterator<Item = u8> {
        let pixels = self.data.chunks_exact(self.channels);
        pixels.map(move |pixel| pixel[channel])
    }

    /// As numbers in [0, 1], `[1, C, height, width]`.
    pub fn images(&self) -> Images {
        let planes = (0..self.channels).flat_map(|channel| self.plane(channel));
        let mut data = Vec::with_capacity(self.data.len());
        data.extend(planes.map(|v| f32::from(v) / 255.0));
        Images {
            dims: [1, self.channels, self.height, self.width]
                .map(|d| d as u64)
                .to_vec(),
            data,
        }
    }
}

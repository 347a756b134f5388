//! Encodings of pictures as model input.

/// The encoding of pictures for a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Encoding {
    /// Unchanged: x in [0, 1].
    #[default]
    Raw,
    /// Per channel, `(x - mean) / std`.
    Normalized {
        /// One mean per channel, or one for all.
        mean: Vec<f64>,
        /// One standard deviation a channel, or one for all.
        std: Vec<f64>,
    },
    /// `[x, 1 - x]` along the channels.
    WithInverse,
}

impl Encoding {
    /// Checks that pictures with this number of channels can be encoded.
    ///
    /// # Errors
    /// A description of the mismatch.
    pub fn check(&self, channels: usize) -> Result<(), String> {
        let Encoding::Normalized { mean, std } = self else {
            return Ok(());
        };
        let fits = |given: &[f64]| given.len() == 1 || given.len() == channels;
        match fits(mean) && fits(std) {
            true => Ok(()),
            false => Err(format!(
                "{} means and {} deviations for {channels} channels",
                mean.len(),
                std.len()
            )),
        }
    }

    /// Encodes the pixels `[C, ...]` of one picture. A channel without a number of its own takes the first.
    pub fn encode(&self, mut pixels: Vec<f64>, channels: usize) -> Vec<f64> {
        match self {
            Encoding::Raw => {}
            Encoding::Normalized { mean, std } => {
                let area = pixels.len().checked_div(channels).unwrap_or(0).max(1);
                let of = |numbers: &[f64], channel: usize| {
                    let number = numbers.get(channel).or(numbers.first());
                    number.copied().unwrap_or_default()
                };
                for (channel, plane) in pixels.chunks_mut(area).enumerate() {
                    let (mean, std) = (of(mean, channel), of(std, channel));
                    plane.iter_mut().for_each(|x| *x = (*x - mean) / std);
                }
            }
            Encoding::WithInverse => {
                let inverse: Vec<f64> = pixels.iter().map(|x| 1.0 - x).collect();
                pixels.extend(inverse);
            }
        }
        pixels
    }
}

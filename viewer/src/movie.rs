//! Pictures one after the other, as GIF.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use gif::{Encoder, EncodingError, Frame, Repeat};

use crate::picture::{BACKGROUND_INDEX, Picture, PictureError, palette};

/// A hundredth of a second is the shortest time that the format has.
const HUNDREDTHS_OF_LAST: u16 = 200;

/// A movie that is being written.
pub struct Movie {
    encoder: Encoder<BufWriter<File>>,
    size: (u16, u16),
    last: Option<Picture>,
    /// Hundredths of a second that each picture is shown.
    delay: u16,
}

impl Movie {
    /// Begins a movie of a machine's pictures, of which this is the first.
    ///
    /// # Errors
    /// [`PictureError`]: the file, or the pictures are too large for the format.
    pub fn new(path: &Path, first: &Picture, delay: u16) -> Result<Self, PictureError> {
        let side = |pixels: u32| {
            u16::try_from(pixels)
                .map_err(|_| PictureError::Format("too large for a GIF".to_owned()))
        };
        let size = (side(first.width())?, side(first.room())?);
        let file = BufWriter::new(File::create(path).map_err(PictureError::File)?);
        let encoder = Encoder::new(file, size.0, size.1, &palette().concat());
        let mut encoder = encoder.map_err(error)?;
        encoder.set_repeat(Repeat::Infinite).map_err(error)?;
        Ok(Self {
            encoder,
            size,
            last: None,
            delay,
        })
    }

    /// Adds a picture, unless it is as the one before.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn add(&mut self, picture: Picture) -> Result<(), PictureError> {
        if self.last.as_ref() != Some(&picture) {
            let delay = self.delay;
            if let Some(before) = self.last.replace(picture) {
                self.write(&before, delay)?;
            }
        }
        Ok(())
    }

    /// Ends it: the last picture is shown longer.
    ///
    /// # Errors
    /// [`PictureError`].
    pub fn finish(mut self) -> Result<(), PictureError> {
        match self.last.take() {
            Some(last) => self.write(&last, HUNDREDTHS_OF_LAST),
            None => Ok(()),
        }
    }

    fn write(&mut self, picture: &Picture, delay: u16) -> Result<(), PictureError> {
        // What a picture does not have is its background.
        let mut pixels =
            vec![BACKGROUND_INDEX; usize::from(self.size.0) * usize::from(self.size.1)];
        let (width, own) = (usize::from(self.size.0), picture.width() as usize);
        for (row, source) in pixels
            .chunks_exact_mut(width)
            .zip(picture.pixels().chunks_exact(own.max(1)))
        {
            let both = width.min(own);
            if let (Some(row), Some(source)) = (row.get_mut(..both), source.get(..both)) {
                row.copy_from_slice(source);
            }
        }
        let mut frame = Frame::from_indexed_pixels(self.size.0, self.size.1, pixels, None);
        frame.delay = delay;
        self.encoder.write_frame(&frame).map_err(error)
    }
}

impl std::fmt::Debug for Movie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Movie")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn error(error: EncodingError) -> PictureError {
    match error {
        EncodingError::Io(error) => PictureError::File(error),
        error => PictureError::Format(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::{Owner, Type};
    use crate::snapshot::{Snapshot, Zone};

    #[test]
    fn a_picture_that_is_smaller_than_the_first_has_background_around_it() {
        let of_zones = |zones: usize| {
            let snapshot = Snapshot {
                owners: vec![Owner::Reserved; 4096],
                zones: vec![Zone::default(); zones],
                ..Snapshot::default()
            };
            Picture::new(&snapshot, "movie")
        };
        let (large, small) = (of_zones(40), of_zones(1));
        assert!(small.height() < large.height());
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut movie = Movie::new(file.path(), &large, 10).unwrap();
        movie.add(large).unwrap();
        movie.add(small).unwrap();
        movie.finish().unwrap();
        let read = gif::DecodeOptions::new().read_info(File::open(file.path()).unwrap());
        let mut read = read.unwrap();
        read.read_next_frame().unwrap().unwrap();
        let second = read.read_next_frame().unwrap().unwrap();
        assert_eq!(second.buffer.last(), Some(&BACKGROUND_INDEX));
    }

    fn picture(owners: Vec<Owner>) -> Picture {
        let snapshot = Snapshot {
            owners,
            ..Snapshot::default()
        };
        Picture::new(&snapshot, "a machine")
    }

    /// What is there later has its line in the legend, too.
    #[test]
    fn later_pictures_are_whole() {
        let mut owners = vec![Owner::Free(Type::Movable); 4096];
        let first = picture(owners.clone());
        for (place, owner) in owners.iter_mut().zip(Owner::ALL) {
            *place = owner;
        }
        let last = picture(owners);
        assert!(first.height() < last.height());
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut movie = Movie::new(file.path(), &first, 10).unwrap();
        movie.add(first).unwrap();
        movie.add(last.clone()).unwrap();
        movie.finish().unwrap();
        let mut decoder = gif::Decoder::new(File::open(file.path()).unwrap()).unwrap();
        let mut frames = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            frames.push(frame.buffer.to_vec());
        }
        assert_eq!(frames.len(), 2);
        assert!(frames[1].starts_with(last.pixels()));
        let (first, rest) = frames[0].split_at(frames[0].len() / 2);
        assert!(first.contains(&(BACKGROUND_INDEX + 1)), "a title");
        assert_eq!(rest.last(), Some(&BACKGROUND_INDEX));
    }
}

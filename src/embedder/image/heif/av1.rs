//! Frames of AV1.
//!
//! The decoder is a translation of dav1d with the interface of C. It runs on this thread alone.

use std::ptr::NonNull;
use std::slice;

use re_rav1d::include::dav1d::data::Dav1dData;
use re_rav1d::include::dav1d::dav1d::{DAV1D_DECODEFRAMETYPE_KEY, Dav1dContext, Dav1dSettings};
use re_rav1d::include::dav1d::headers::{
    DAV1D_PIXEL_LAYOUT_I400, DAV1D_PIXEL_LAYOUT_I420, DAV1D_PIXEL_LAYOUT_I422,
};
use re_rav1d::include::dav1d::picture::Dav1dPicture;
use re_rav1d::src::lib::{
    dav1d_close, dav1d_data_create, dav1d_data_unref, dav1d_default_settings, dav1d_get_picture, dav1d_open,
    dav1d_picture_unref, dav1d_send_data,
};

use super::super::format::Format;
use super::refusal::broken;
use super::ycbcr::{Colours, Frame};
use crate::error::Error;

/// Decodes the first picture of a tile of this size.
pub(super) fn decode(data: &[u8], (width, height): (u32, u32)) -> Result<Picture, Error> {
    let mut decoder = Decoder::new(u64::from(width) * u64::from(height))?;
    decoder.send(data)?;
    let picture = decoder.picture()?;
    if picture.size() != (width, height) {
        return Err(broken(Format::Avif, "a frame has another size than its header says"));
    }
    Ok(picture)
}

/// A decoder that was not closed.
struct Decoder(Option<Dav1dContext>);

impl Decoder {
    fn new(max_pixels: u64) -> Result<Decoder, Error> {
        let mut settings = std::mem::MaybeUninit::<Dav1dSettings>::uninit();
        // SAFETY: the pointer is to memory for settings, and they are written there.
        let mut settings = unsafe {
            dav1d_default_settings(NonNull::new_unchecked(settings.as_mut_ptr()));
            settings.assume_init()
        };
        settings.n_threads = 1;
        settings.max_frame_delay = 1;
        settings.all_layers = 0;
        // A still picture is a key frame.
        settings.decode_frame_type = DAV1D_DECODEFRAMETYPE_KEY;
        settings.frame_size_limit = max_pixels.try_into().unwrap_or(u32::MAX);
        // SAFETY: the logger, whose type has no public name, is two optional pointers, and zeros are none.
        settings.logger = unsafe { std::mem::zeroed() };
        let mut context = None;
        // SAFETY: both pointers are to values of their types, which outlive the call.
        let result =
            unsafe { dav1d_open(Some(NonNull::from(&mut context)), Some(NonNull::from(&mut settings))) };
        match result.0 {
            0 => Ok(Decoder(context)),
            _ => Err(Error::Internal("the decoder of AV1 did not start".to_owned())),
        }
    }

    /// Hands over all data.
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        let mut copy = Dav1dData::default();
        if data.is_empty() {
            return Err(broken(Format::Avif, "a picture has no data"));
        }
        // SAFETY: the pointer is to a value of its type. The result is null or has as many bytes as were asked for.
        unsafe {
            let place = dav1d_data_create(Some(NonNull::from(&mut copy)), data.len());
            if place.is_null() {
                return Err(broken(Format::Avif, "a picture has too much data"));
            }
            place.copy_from_nonoverlapping(data.as_ptr(), data.len());
        }
        // SAFETY: the context is open, and the data is of `dav1d_data_create`. Data that is not taken is given
        // back.
        let result = unsafe {
            let result = dav1d_send_data(self.0, Some(NonNull::from(&mut copy)));
            dav1d_data_unref(Some(NonNull::from(&mut copy)));
            result
        };
        if result.0 == 0 { Ok(()) } else { Err(broken(Format::Avif, "its data breaks the rules of AV1")) }
    }

    fn picture(&mut self) -> Result<Picture, Error> {
        let mut picture = Picture(Dav1dPicture::default());
        // SAFETY: the context is open, and the pointer is to a value of its type, which has no picture.
        let result = unsafe { dav1d_get_picture(self.0, Some(NonNull::from(&mut picture.0))) };
        if result.0 == 0 {
            Ok(picture)
        } else {
            Err(broken(Format::Avif, "its data breaks the rules of AV1"))
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the context is open and is not used afterwards. Pictures count their references to its memory.
        unsafe { dav1d_close(Some(NonNull::from(&mut self.0))) }
    }
}

/// A decoded picture.
pub(super) struct Picture(Dav1dPicture);

impl Frame for Picture {
    const SMOOTH: bool = true;

    fn size(&self) -> (u32, u32) {
        (self.0.p.w.unsigned_abs(), self.0.p.h.unsigned_abs())
    }

    fn bits(&self) -> u32 {
        self.0.p.bpc.unsigned_abs()
    }

    fn chroma(&self) -> Option<(u32, u32)> {
        match self.0.p.layout {
            DAV1D_PIXEL_LAYOUT_I400 => None,
            DAV1D_PIXEL_LAYOUT_I420 => Some((1, 1)),
            DAV1D_PIXEL_LAYOUT_I422 => Some((1, 0)),
            _ => Some((0, 0)),
        }
    }

    fn colours(&self) -> Colours {
        // SAFETY: a picture keeps the header of its sequence.
        let header = self.0.seq_hdr.map(|header| unsafe { header.as_ref() });
        header.map_or(Colours { matrix: 2, full_range: true }, |header| Colours {
            matrix: header.mtrx as u16,
            full_range: header.color_range != 0,
        })
    }

    fn row(&self, plane: usize, y: u32, into: &mut [u16]) {
        let (across, down) = if plane == 0 { (0, 0) } else { self.chroma().unwrap_or((0, 0)) };
        let (width, height) = self.size();
        assert!(into.len() <= width.div_ceil(1 << across) as usize && y < height.div_ceil(1 << down));
        let data = self.0.data[plane].expect("a picture has its planes");
        let stride = self.0.stride[usize::from(plane > 0)];
        // SAFETY: the plane has this row, `stride` bytes behind the one before it, and in it as many samples, as was just
        // held against its size. A sample has one byte where it has 8 bits, and else two, which are aligned.
        unsafe {
            let row = data.as_ptr().byte_offset(stride * y as isize);
            if self.bits() == 8 {
                let samples = slice::from_raw_parts(row.cast::<u8>(), into.len());
                into.iter_mut().zip(samples).for_each(|(into, sample)| *into = (*sample).into());
            } else {
                into.copy_from_slice(slice::from_raw_parts(row.cast::<u16>(), into.len()));
            }
        }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: it is a picture of `dav1d_get_picture`, or an empty one.
        unsafe { dav1d_picture_unref(Some(NonNull::from(&mut self.0))) };
        // The function leaves an empty picture with a list of its own, which it frees with the next picture only.
        let list = self.0.itut_t35_ref.take();
        // SAFETY: the function made the list's only reference, which is taken out of the picture.
        drop(list.map(|list| unsafe { list.into_arc() }));
    }
}

//! Pictures to push, and to compare with.

use image::DynamicImage;
use image_streamer::placeholder::{self, Format, Size};

/// A photo, JPEG.
pub const PHOTO_JPEG: &[u8] = include_bytes!("../../pictures/chelsea.jpg");
/// The same photo, PNG.
pub const PHOTO_PNG: &[u8] = include_bytes!("../../pictures/chelsea.png");

/// Bytes that begin like a JPEG, hold a number and are as long as wanted: the server looks no further.
pub fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE0];
    bytes.extend(number.to_be_bytes());
    bytes.resize(length.max(12), number as u8);
    bytes
}

/// The number in such bytes.
pub fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*bytes[4..].first_chunk().unwrap())
}

/// The smallest pictures of every type that can be told by their first bytes.
pub fn of_every_type() -> [(&'static str, Vec<u8>); 6] {
    let mut bmp = b"BM".to_vec();
    bmp.resize(14, 0);
    bmp.extend([40, 0, 0, 0, 1, 2, 3, 4]);
    [
        ("image/jpeg", b"\xFF\xD8\xFF\xE0jpeg".to_vec()),
        ("image/png", b"\x89PNG\r\n\x1a\npng".to_vec()),
        ("image/gif", b"GIF89agif".to_vec()),
        ("image/webp", b"RIFF\x10\0\0\0WEBPVP8 ".to_vec()),
        ("image/avif", b"\0\0\0\x1cftypavif\0\0\0\0".to_vec()),
        ("image/bmp", bmp),
    ]
}

/// What a producer that counts draws for this number, without the time below it.
pub fn counted(number: u32, width: u32, height: u32, format: Format) -> DynamicImage {
    let size = Size::new(width, height).unwrap();
    image::load_from_memory(&placeholder::draw(&number.to_string(), "", size, format).unwrap()).unwrap()
}

/// The pixels of such a picture down to the end of the number.
pub fn label(picture: &DynamicImage) -> Vec<u8> {
    picture.crop_imm(0, 0, picture.width(), picture.height() * 7 / 10).to_rgb8().into_raw()
}

#![allow(clippy::unwrap_used)]

use turbojpeg::Decompressor;

use super::*;

const PLAIN: Style = Style { quality: 95, max_width: None, depth: DEPTH };
const DEPTH: DepthRange = DepthRange::ZERO_TO_TEN;

fn image<'a>(encoding: &'a str, width: u32, height: u32, step: u32, data: &'a [u8]) -> RawImage<'a> {
    RawImage { width, height, encoding, is_bigendian: false, step, data }
}

/// Red, green and blue of each pixel, and the size.
fn decoded(jpeg: &[u8]) -> (Vec<[u8; 3]>, usize, usize) {
    let mut decompressor = Decompressor::new().unwrap();
    let header = decompressor.read_header(jpeg).unwrap();
    let (width, height) = (header.width, header.height);
    let mut pixels = vec![0; width * height * 3];
    let into = Image { pixels: &mut pixels[..], width, pitch: width * 3, height, format: PixelFormat::RGB };
    decompressor.decompress(jpeg, into).unwrap();
    (pixels.as_chunks().0.to_vec(), width, height)
}

#[track_caller]
fn shows(jpeg: &[u8], colour: [u8; 3]) {
    let (pixels, ..) = decoded(jpeg);
    for pixel in pixels {
        let off = (0..3).map(|it| pixel[it].abs_diff(colour[it])).max().unwrap();
        assert!(off <= 4, "{pixel:?} where {colour:?} was expected");
    }
}

const TEAL: [u8; 3] = [20, 130, 120];

/// One colour of 16 x 16 pixels in every encoding, with as many bytes of rubbish after each row.
fn teal(encoding: &str, rubbish: usize) -> (Vec<u8>, usize) {
    let [r, g, b] = TEAL;
    // BT.601: from the definition, in floating point.
    let yuv = {
        let [r, g, b] = TEAL.map(f64::from);
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        let scaled = [
            16.0 + y * 219.0 / 255.0,
            128.0 + (b - y) * 112.0 / (0.886 * 255.0),
            128.0 + (r - y) * 112.0 / (0.701 * 255.0),
        ];
        scaled.map(|it| it.round() as u8)
    };
    let pixel = |x: usize, y: usize| -> Vec<u8> {
        let odd = x % 2;
        let tile = |colours: [u8; 4]| colours[(y % 2) * 2 + odd];
        match encoding {
            "rgb8" => vec![r, g, b],
            "bgr8" => vec![b, g, r],
            "rgba8" => vec![r, g, b, 9],
            "bgra8" => vec![b, g, r, 9],
            "yuv422" => vec![yuv[1 + odd], yuv[0]],
            "yuv422_yuy2" => vec![yuv[0], yuv[1 + odd]],
            "bayer_rggb8" => vec![tile([r, g, g, b])],
            "bayer_bggr8" => vec![tile([b, g, g, r])],
            "bayer_gbrg8" => vec![tile([g, b, r, g])],
            "bayer_grbg8" => vec![tile([g, r, b, g])],
            "bayer_rggb16" => vec![77, tile([r, g, g, b])],
            "mono8" => vec![g],
            "mono16" => vec![99, g],
            _ => unreachable!("{encoding}"),
        }
    };
    let mut data = Vec::new();
    for y in 0..16 {
        data.extend((0..16).flat_map(|x| pixel(x, y)));
        data.extend(std::iter::repeat_n(0xAA, rubbish));
    }
    let step = data.len() / 16;
    (data, step)
}

const COLOURED: [&str; 11] = [
    "rgb8",
    "bgr8",
    "rgba8",
    "bgra8",
    "yuv422",
    "yuv422_yuy2",
    "bayer_rggb8",
    "bayer_bggr8",
    "bayer_gbrg8",
    "bayer_grbg8",
    "bayer_rggb16",
];

#[test]
fn every_encoding_shows_its_colour_whatever_the_step_and_the_size() {
    for max_width in [None, Some(7), Some(8)] {
        let mut jpeg = Jpeg::new(Style { max_width, ..PLAIN }).unwrap();
        for rubbish in [0, 6] {
            for encoding in COLOURED {
                let (data, step) = teal(encoding, rubbish);
                shows(&jpeg.of(&image(encoding, 16, 16, step as u32, &data)).unwrap(), TEAL);
            }
            for encoding in ["mono8", "mono16"] {
                let (data, step) = teal(encoding, rubbish);
                shows(&jpeg.of(&image(encoding, 16, 16, step as u32, &data)).unwrap(), [TEAL[1]; 3]);
            }
        }
    }
}

#[test]
fn numbers_may_begin_with_either_byte() {
    let mut jpeg = Jpeg::new(PLAIN).unwrap();
    let mut picture = |encoding, is_bigendian, bytes: &[u8]| {
        let data = bytes.repeat(64);
        let image = RawImage { is_bigendian, ..image(encoding, 8, 8, 8 * bytes.len() as u32, &data) };
        jpeg.of(&image).unwrap()
    };
    for (big, little) in [("mono16", [200, 1]), ("16UC1", [4, 210])].map(|(encoding, bytes)| {
        let reversed = [bytes[1], bytes[0]];
        (picture(encoding, true, &bytes), picture(encoding, false, &reversed))
    }) {
        assert!(big == little);
    }
    assert!(picture("32FC1", true, &2.5_f32.to_be_bytes()) == picture("32FC1", false, &2.5_f32.to_le_bytes()));
    // Millimetres and metres get the same colour.
    assert!(picture("16UC1", false, &2500_u16.to_le_bytes()) == picture("32FC1", false, &2.5_f32.to_le_bytes()));
}

#[test]
fn a_wide_picture_is_made_smaller_and_keeps_its_shape() {
    let mut jpeg = Jpeg::new(Style { max_width: Some(100), ..PLAIN }).unwrap();
    for (width, height, expected) in
        [(400, 300, (100, 75)), (100, 50, (100, 50)), (64, 48, (64, 48)), (4000, 2, (100, 1))]
    {
        let data = vec![50; width * height * 3];
        let made = jpeg.of(&image("rgb8", width as u32, height as u32, width as u32 * 3, &data)).unwrap();
        let (_, width, height) = decoded(&made);
        assert_eq!((width, height), expected);
    }
}

#[test]
fn what_does_not_fit_together_is_refused_and_says_so() {
    let mut jpeg = Jpeg::new(PLAIN).unwrap();
    let data = vec![0; 300];
    for (refused, words) in [
        (image("rgb8", 10, 10, 29, &data), "step of 29 bytes"),
        (image("rgb8", 10, 10, 30, &data[..299]), "too short"),
        (image("rgb8", 10, 11, 30, &data), "too short"),
        (image("rgb8", 0, 10, 30, &data), "0 x 10"),
        (image("rgb8", 10, 0, 30, &data), "10 x 0"),
        (image("rgb8", 70_000, 1, 210_000, &data), "70000 x 1"),
        (image("rgb8", u32::MAX, u32::MAX, u32::MAX, &data), "no size"),
        (image("mono8", 65_500, 65_500, u32::MAX, &data), "too short"),
        (image("yuv422", 9, 10, 30, &data), "even width"),
        (image("bayer_rggb", 10, 10, 30, &data), "not known"),
        (image("bayer_", 10, 10, 30, &data), "not known"),
        (image("h264", 10, 10, 30, &data), "not known"),
        (image("", 10, 10, 30, &data), "not known"),
    ] {
        let error = jpeg.of(&refused).unwrap_err().to_string();
        assert!(error.contains(words), "{refused:?}: {error}");
    }
    // The last row may end with its last pixel.
    assert!(jpeg.of(&image("rgb8", 9, 10, 30, &data[..297])).is_ok());
}

#[test]
fn the_smallest_pictures_of_every_encoding_are_shown() {
    let mut jpeg = Jpeg::new(Style { max_width: Some(1), ..PLAIN }).unwrap();
    let data = [128; 64];
    for encoding in COLOURED.iter().chain(&["mono8", "mono16", "16UC1", "32FC1"]) {
        for (width, height) in [(2, 1), (2, 2), (3, 3), (1, 1)] {
            match jpeg.of(&image(encoding, width, height, 16, &data)) {
                Ok(made) => assert!(!decoded(&made).0.is_empty()),
                Err(error) => assert!(matches!(error, Unusable::OddWidth { .. }), "{encoding} {width}: {error}"),
            }
        }
    }
}

/// The colours of a picture must not depend on where its strips begin.
#[test]
fn a_tall_mosaic_has_no_seams() {
    let (width, height) = (16, 300);
    let data: Vec<u8> = (0..height).flat_map(|y| vec![(y % 256) as u8; width]).collect();
    let rows = Rows::of(&image("bayer_rggb8", 16, 300, 16, &data), Pixels::named("bayer_rggb8").unwrap()).unwrap();
    let mosaic = Mosaic::named("bayer_rggb8").unwrap();
    let mut strips = Vec::new();
    mosaic.colours(rows, &mut strips).unwrap();
    for y in 2..254 {
        let at = (y * width + 5) * 3;
        assert!(
            strips[at..at + 3].iter().all(|shade| shade.abs_diff(y as u8) <= 1),
            "row {y}: {:?}",
            &strips[at..at + 3]
        );
    }
}

use super::*;

const JPEG: &[u8] = include_bytes!("../../../tests/pictures/chelsea.jpg");
const PNG: &[u8] = include_bytes!("../../../tests/pictures/chelsea.png");

/// Above everything that is sent here.
const PLENTY: usize = 1 << 20;
/// What is held beside a picture: a line that grew by doubling, or a boundary line.
const SLACK: usize = 2 * MAX_LINE + 256;

type Outcome = (Vec<Item>, Option<NotAStream>);

/// Feeds a body in pieces of the lengths that `piece` gives, and checks what holds for any body.
fn feed(boundary: Option<&str>, max: usize, body: &[u8], mut piece: impl FnMut() -> usize) -> Outcome {
    let mut splitter = Splitter::new(boundary, max);
    let mut items = VecDeque::new();
    let mut rest = body;
    let mut reason = None;
    while let Some((chunk, after)) = rest.split_at_checked(piece().min(rest.len())).filter(|_| !rest.is_empty()) {
        rest = after;
        reason = splitter.feed(chunk, &mut items).err();
        assert!(splitter.held() <= max.saturating_add(SLACK), "{} bytes are held", splitter.held());
        if reason.is_some() {
            assert_eq!(splitter.feed(b"\xFF\xD8", &mut items).err(), reason, "a failure stays");
            break;
        }
    }
    items.extend(splitter.end());
    for item in &items {
        if let Item::Picture { bytes, .. } = item {
            assert!(!bytes.is_empty() && bytes.len() <= max, "{} bytes", bytes.len());
        }
    }
    (items.into(), reason)
}

/// Feeds a body in pieces of every length, and checks that this makes no difference.
fn split_of(boundary: Option<&str>, max: usize, body: &[u8]) -> Outcome {
    let whole = feed(boundary, max, body, || usize::MAX);
    for length in 1..body.len().min(600) {
        assert!(feed(boundary, max, body, || length) == whole, "in pieces of {length} bytes");
    }
    whole
}

/// What comes out of a body that is a stream, in whatever pieces.
fn split(boundary: Option<&str>, max: usize, body: impl AsRef<[u8]>) -> Vec<Item> {
    let (items, reason) = split_of(boundary, max, body.as_ref());
    assert_eq!(reason, None);
    items
}

fn picture(bytes: impl AsRef<[u8]>) -> Item {
    Item::Picture { bytes: Bytes::copy_from_slice(bytes.as_ref()), captured: None }
}

const TOO_LARGE: Item = Item::Refused(Fault::TooLarge);

/// The items with the reasons of malformed pictures left out.
fn plain(items: Vec<Item>) -> Vec<Item> {
    let plain = |item| if matches!(item, Item::Refused(Fault::Malformed(_))) { MALFORMED } else { item };
    items.into_iter().map(plain).collect()
}

const MALFORMED: Item = Item::Refused(Fault::Malformed(""));

fn segment(code: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(data.len() + 2).unwrap().to_be_bytes();
    [&[0xFF, code, high, low], data].concat()
}

/// A JPEG of one scan whose data have a stuffed 0xFF and a restart marker.
fn jpeg(data: &[u8]) -> Vec<u8> {
    [
        b"\xFF\xD8",
        &*segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
        &segment(0xC0, b"\x08\0\x10\0\x10\x01\x01\x11\0"),
        &segment(0xDA, b"\x01\x01\0\0\x3F\0"),
        b"\x12\xFF\x00\x34\xFF\xD3",
        data,
        b"\xFF\xD9",
    ]
    .concat()
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    [&u32::try_from(data.len()).unwrap().to_be_bytes(), &kind[..], data, b"\xC5\xC5\xC5\xC5"].concat()
}

fn png(data: &[u8]) -> Vec<u8> {
    [
        b"\x89PNG\r\n\x1a\n",
        &*chunk(b"IHDR", b"\0\0\0\x01\0\0\0\x01\x08\0\0\0\0"),
        &chunk(b"IDAT", data),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

/// A part as ffmpeg writes it.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let head = format!("Content-type: image/jpeg\r\nContent-length: {}\r\n\r\n", bytes.len());
    [head.as_bytes(), bytes, b"\r\n--ffmpeg\r\n"].concat()
}

/// A part without its length.
fn bounded(bytes: &[u8]) -> Vec<u8> {
    [b"Content-Type: image/jpeg\r\n\r\n", bytes, b"\r\n--foo\r\n"].concat()
}

#[test]
fn what_ffmpeg_sends_is_taken_apart_by_its_lengths() {
    let (one, two) = (jpeg(b"one"), jpeg(b"\r\n--ffmpeg\r\ntwo"));
    let body = [b"--ffmpeg\r\n", &*sized(&one), &sized(&two), &sized(b"anything")].concat();
    let items = [picture(&one), picture(&two), picture("anything")];
    assert_eq!(split(None, PLENTY, &body), items);
    assert_eq!(split(Some("ffmpeg"), PLENTY, &body), items);
}

#[test]
fn parts_without_lengths_end_at_the_next_boundary_line() {
    let (one, two) = (jpeg(b"one"), png(b"two"));
    let body = [b"--foo\r\n", &*bounded(&one), &bounded(&two)].concat();
    assert_eq!(split(None, PLENTY, &body), [picture(&one), picture(&two)]);
}

#[test]
fn real_pictures_come_out_as_they_went_in() {
    for bytes in [JPEG, PNG] {
        let bodies = [
            bytes.repeat(2),
            [b"--ffmpeg\r\n", &*sized(bytes), &sized(bytes)].concat(),
            [b"--foo\r\n\r\n", bytes, b"\r\n--foo\r\n\r\n", bytes, b"\r\n--foo--"].concat(),
        ];
        for body in bodies {
            for length in [1, 2, 3, 61, 1000, 1448, 4096, 16 * 1024, 65_536, usize::MAX] {
                let (items, reason) = feed(None, PNG.len(), &body, || length);
                assert!(reason.is_none() && items == [picture(bytes), picture(bytes)], "in pieces of {length} bytes");
            }
        }
    }
}

#[test]
fn each_picture_comes_out_with_its_last_byte() {
    let (jpeg, png) = (jpeg(b"x"), png(b"x"));
    let head = b"--ffmpeg\r\nContent-Length: 4\r\n\r\n";
    for (body, length) in [(&jpeg[..], jpeg.len()), (&png, png.len()), (&[head, &b"abcd"[..]].concat(), 4)] {
        let mut splitter = Splitter::new(None, PLENTY);
        let mut items = VecDeque::new();
        let (last, most) = body.split_last().unwrap();
        splitter.feed(most, &mut items).unwrap();
        assert!(items.is_empty() && splitter.held() >= length - 1);
        splitter.feed(&[*last], &mut items).unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(splitter.held(), 0, "nothing is held between pictures");
        assert_eq!(splitter.end(), None);
    }
}

#[test]
fn a_picture_pins_about_its_own_size() {
    let pictures = [jpeg(&[1; 5000]), jpeg(&[1; 5200]), jpeg(&[1; 90_000]), jpeg(b""), jpeg(&[1; 70_000])];
    let backs = pictures.concat();
    let parts: Vec<u8> = pictures.iter().flat_map(|picture| bounded(picture)).collect();
    for body in [backs, [b"--foo\r\n", &parts[..]].concat()] {
        for length in [1, 100, 1448, 16 * 1024, usize::MAX] {
            let (items, _) = feed(None, PLENTY, &body, || length);
            assert_eq!(items.len(), pictures.len());
            for item in items {
                let Item::Picture { bytes, .. } = item else { panic!("{item:?}") };
                let length = bytes.len();
                let capacity = bytes.try_into_mut().unwrap().capacity();
                assert!(capacity - length <= length / 8, "{length} bytes in {capacity}");
            }
        }
    }
}

#[test]
fn bare_line_feeds_do_as_line_ends() {
    let one = jpeg(b"one");
    let body =
        [b"--foo\ncontent-length:4\n\nabcd\n--foo\nX: y\n\n", &*one, b"\n--foo\n\n", &one, b"\n--foo--\n"].concat();
    for boundary in [None, Some("foo")] {
        assert_eq!(split(boundary, PLENTY, &body), [picture("abcd"), picture(&one), picture(&one)]);
    }
}

#[test]
fn a_boundary_may_be_named_with_its_dashes_or_begin_with_dashes() {
    for (boundary, line) in [
        (Some("foo"), "--foo"),
        (Some("--foo"), "--foo"),
        (Some("--foo"), "----foo"),
        (Some("----a"), "------a"),
        (Some(" foo "), "--foo"),
        (Some(""), "--foo"),
        (None, "--foo"),
        (None, "----foo"),
        (None, "--foo--"),
    ] {
        let body = format!("{line}\r\n\r\nabc\r\n{line} \t\r\nContent-Length: 3\r\n\r\nabc\r\n{line}--\r\n");
        assert_eq!(split(boundary, PLENTY, body), [picture("abc"), picture("abc")], "{boundary:?} {line}");
    }
}

#[test]
fn what_only_resembles_a_boundary_line_belongs_to_the_picture() {
    for bytes in [
        "a\r\n--fo\r\nb",
        "a\r\n--foot\r\nb",
        "a\n--foo-\nb",
        "a\r\n--foo---\r\nb",
        "a\r\n--foo -\r\nb",
        "a\r\n--foo\r\rb",
        "a--foo\r\nb",
        "a\r\n\r\n-\r\r\n--\n--f",
        &format!("a\n--foo{}\nb", " ".repeat(64)),
        "a\r",
        "a\n",
        "-",
        "a\n\n",
        "a\n--foo-",
    ] {
        let body = format!("--foo\r\n\r\n{bytes}\r\n--foo\r\n\r\n{bytes}\r\n--foo--");
        assert_eq!(split(None, PLENTY, body), [picture(bytes), picture(bytes)], "{bytes:?}");
    }
}

#[test]
fn headers_are_read_in_any_case_and_only_where_they_make_sense() {
    for (headers, length) in [
        ("CONTENT-LENGTH: 9", 9),
        ("content-length :9 ", 9),
        ("Content-Length: 8\r\nContent-Length: 9", 9),
        ("Content-Length: nine", 17),
        ("Content-Length: -9", 17),
        ("Content-Length: +9", 17),
        ("Content-Length: 9 bytes", 17),
        ("Content-Length:", 17),
        ("Content-Length", 17),
        ("Content-Length: \u{fc}", 17),
        ("X-Content-Length: 9", 17),
        (": 9", 17),
    ] {
        let bytes = "a\r\n--foo\rbcdefgh";
        let body = format!("--foo\r\n{headers}\r\n\r\n{bytes}!\r\n--foo\r\n");
        assert_eq!(split(None, PLENTY, body), [picture(&format!("{bytes}!")[..length])], "{headers:?}");
    }
}

#[test]
fn a_valid_timestamp_of_a_part_goes_with_its_picture() {
    for (stamp, seconds) in [
        ("x-timestamp: 1700000000.123456", Some(1_700_000_000.123_456)),
        ("X-Timestamp:0", Some(0.0)),
        ("X-Timestamp: yesterday", None),
        ("X-Timestamp: -1", None),
        ("X-Timestamp:", None),
    ] {
        let captured = seconds.and_then(Timestamp::from_seconds);
        let item = |bytes| Item::Picture { bytes: Bytes::from_static(bytes), captured };
        let body =
            format!("--foo\r\n{stamp}\r\nContent-Length: 1\r\n\r\na\r\n--foo\r\n{stamp}\r\n\r\nb\r\n--foo\r\n\r\nc");
        assert_eq!(split(None, PLENTY, body), [item(b"a"), item(b"b"), picture("c")], "{stamp}");
    }
}

#[test]
fn after_a_wrong_length_the_next_boundary_line_is_found() {
    for (length, first) in [
        (3, "abc"),
        (8, "abcdefgh"),
        // The line end was counted.
        (10, "abcdefgh\r\n"),
        // The boundary line is overrun, and with it the second part.
        (12, "abcdefgh\r\n--"),
    ] {
        let body = format!(
            "--foo\r\nContent-Length: {length}\r\n\r\nabcdefgh\r\n--foo\r\n\r\nsecond\r\n--foo\r\n\r\nthird\r\n--foo--"
        );
        let second = (length <= 10).then(|| picture("second"));
        let items: Vec<Item> = [Some(picture(first)), second, Some(picture("third"))].into_iter().flatten().collect();
        assert_eq!(split(None, PLENTY, body), items, "{length}");
    }
}

#[test]
fn parts_without_a_picture_are_refused_and_doubled_boundary_lines_are_not() {
    for (part, items) in [
        ("Content-Length: 0\r\n\r\n\r\n", vec![MALFORMED]),
        ("Content-Length: 0\r\n\r\n", vec![MALFORMED]),
        ("\r\n\r\n", vec![MALFORMED]),
        ("\r\n", vec![MALFORMED]),
        ("Content-Length: 3\r\n", vec![MALFORMED]),
        ("", vec![]),
        ("--foo\r\n--foo \r\n", vec![]),
    ] {
        let body = format!("--foo\r\n{part}--foo\r\nContent-Length: 1\r\n\r\na");
        assert_eq!(plain(split(None, PLENTY, body)), [items, vec![picture("a")]].concat(), "{part:?}");
    }
}

#[test]
fn preamble_and_epilogue_are_passed_over() {
    let body = "This is multipart.\r\n--fool\r\n\r\n--foo\r\n\r\na\r\n--foo--\r\nepilogue --foo\r\n--foo\r\n\r\nb\r\n--foo--\r\nend";
    assert_eq!(split(Some("foo"), PLENTY, body), [picture("a"), picture("b")]);
    assert_eq!(split(Some("foo"), PLENTY, "--foo--\r\nepilogue\r\n"), []);
    assert_eq!(split(Some("foo"), PLENTY, "--foo\r\n--foo--\r\nepilogue\r\n"), []);
    assert_eq!(split(Some("foo"), PLENTY, "--foo--\r\n--foo\r\n\r\na"), [picture("a")]);
    assert_eq!(split(None, PLENTY, "\r\n \n--foo\r\n\r\na"), [picture("a")]);
}

#[test]
fn a_body_that_is_no_stream_is_told_by_its_first_bytes() {
    for body in ["hello", "GIF89a", "-hello", "\u{89}PNX", "  {}", "\n\t--foo\r\n"] {
        assert_eq!(split_of(None, PLENTY, body.as_bytes()), (vec![], Some(NotAStream::UnknownForm)), "{body}");
    }
    assert_eq!(split_of(None, PLENTY, b"\xFF\xD9").1, Some(NotAStream::UnknownForm));
    assert_eq!(split_of(None, PLENTY, b"--\r\n\r\na").1, Some(NotAStream::NoBoundary));
    let at = |boundary, body: &str| {
        let whole = feed(boundary, PLENTY, body.as_bytes(), || usize::MAX);
        assert_eq!(feed(boundary, PLENTY, body.as_bytes(), || 1), whole);
        whole.1
    };
    assert_eq!(at(None, &" ".repeat(MAX_PREAMBLE + 1)), Some(NotAStream::UnknownForm));
    assert_eq!(at(None, &"-".repeat(MAX_LINE)), None);
    assert_eq!(at(None, &"-".repeat(MAX_LINE + 1)), Some(NotAStream::NoBoundary));
    assert_eq!(at(None, &format!("{}\n", "-".repeat(MAX_LINE + 1))), Some(NotAStream::NoBoundary));
    for filler in ["-", "\n", "hello\r\n"] {
        let preamble = filler.repeat(MAX_PREAMBLE + 1);
        let most = &preamble[..MAX_PREAMBLE - "\n--foo\r\n".len()];
        assert_eq!(at(Some("foo"), &format!("{most}\n--foo\r\n\r\na")), None);
        assert_eq!(at(Some("foo"), &format!("{most}-\n--foo\r\n\r\na")), Some(NotAStream::NoBoundary));
        assert_eq!(at(Some("foo"), &preamble), Some(NotAStream::NoBoundary));
    }
}

#[test]
fn headers_without_end_end_the_stream() {
    let at = |headers: &str| {
        let body = format!("--foo\r\n\r\na\r\n--foo\r\n{headers}\r\n\r\nb");
        let whole = feed(None, PLENTY, body.as_bytes(), || usize::MAX);
        assert_eq!(feed(None, PLENTY, body.as_bytes(), || 1), whole);
        assert_eq!(whole.0.first(), Some(&picture("a")));
        whole.1
    };
    assert_eq!(at(&"x".repeat(MAX_LINE - 1)), None);
    assert_eq!(at(&"x".repeat(MAX_LINE)), Some(NotAStream::LongHeader));
    assert_eq!(at(&vec!["X: y"; MAX_HEADER_LINES].join("\r\n")), None);
    assert_eq!(at(&vec!["X: y"; MAX_HEADER_LINES + 1].join("\r\n")), Some(NotAStream::ManyHeaders));
}

#[test]
fn a_part_over_the_limit_is_refused_and_the_stream_goes_on() {
    for length in ["Content-Length: 11\r\n", "Content-Length: 99999999999999999999999\r\n", ""] {
        let body = format!(
            "--foo\r\n{length}\r\n01234567890\r\n--foo\r\n\r\n0123456789\r\n--foo\r\nContent-Length: 10\r\n\r\n\
             0123456789\r\n--foo\r\n{length}\r\n{}\n--foo\n\na\r\n--foo--",
            "x".repeat(300)
        );
        let whole = picture("0123456789");
        assert_eq!(split(None, 10, body), [TOO_LARGE, whole.clone(), whole, TOO_LARGE, picture("a")], "{length}");
    }
    assert_eq!(split(None, 3, "--foo\r\n\r\nabcd"), [TOO_LARGE]);
    assert_eq!(split(None, 0, "--foo\r\n\r\na\r\n--foo\r\nContent-Length: 1\r\n\r\na"), [TOO_LARGE, TOO_LARGE]);
}

#[test]
fn a_bare_picture_over_the_limit_is_refused_and_the_stream_goes_on() {
    // The large one has the small one as its thumbnail, which is not to be taken for a picture.
    let small = jpeg(b"");
    let thumbnail = [&small[..2], &segment(0xE1, &[b"Exif\0\0", &small[..], &[0; 100]].concat()), &small[2..]].concat();
    let long = jpeg(&[7; 200]);
    let body = [&small[..], &thumbnail, &small, &long, &thumbnail].concat();
    assert_eq!(split(None, small.len(), &body), [picture(&small), TOO_LARGE, picture(&small), TOO_LARGE, TOO_LARGE]);
    assert_eq!(plain(split(None, small.len() - 1, &body)), vec![TOO_LARGE; 5]);

    let (small, large) = (png(b""), png(b"0"));
    let body = [&small[..], &large, &small, &large].concat();
    assert_eq!(split(None, small.len(), &body), [picture(&small), TOO_LARGE, picture(&small), TOO_LARGE]);
    for max in 0..small.len() {
        assert_eq!(split(None, max, &body), vec![TOO_LARGE; 4], "{max}");
    }
    // Refused at its header, before its data have come.
    assert_eq!(split(None, small.len(), &large[..small.len() - 12]), [TOO_LARGE]);
}

#[test]
fn segments_are_passed_over_whatever_they_hold() {
    let plain = jpeg(b"data");
    let thumbnail = segment(0xE1, &[b"Exif\0\0", &*jpeg(b"thumbnail")].concat());
    let empty = segment(0xFE, b"");
    let bytes = [&plain[..2], &empty, &thumbnail, &segment(0xFE, b"\xFF\xD9\xFF\xD8\xFF"), &plain[2..]].concat();
    assert_eq!(split(None, PLENTY, bytes.repeat(3)), vec![picture(&bytes); 3]);

    let plain = png(b"data");
    let nested = chunk(b"eXIf", &[&plain[..], &jpeg(b"thumbnail"), b"IEND"].concat());
    let bytes = [&plain[..33], &nested, &plain[33..]].concat();
    assert_eq!(split(None, PLENTY, bytes.repeat(3)), vec![picture(&bytes); 3]);
}

#[test]
fn a_progressive_jpeg_ends_after_its_last_scan() {
    let scan = [&*segment(0xDA, b"\x01\x01\0\0\0\0"), b"\xFF\x00abc\xFF\xD0def\xFF\xD7\xFF\x00"].concat();
    let tables = segment(0xC4, b"\0\xFF\xD9");
    let bytes = [
        b"\xFF\xD8",
        &*segment(0xC2, b"\x08\0\0\0\x10\x01\x01\x11\0"),
        &scan,
        // The number of lines, and fill before markers, in and after scans.
        &segment(0xDC, b"\0\x10"),
        b"\xFF\xFF\xFF",
        &tables,
        // Markers that stand alone.
        b"\xFF\x01\xFF\xD1",
        &scan,
        b"\xFF\xFF",
        &scan,
        b"\xFF\xFF\xFF\xD9",
    ]
    .concat();
    assert_eq!(split(None, PLENTY, bytes.repeat(2)), [picture(&bytes), picture(&bytes)]);
}

#[test]
fn padding_between_bare_pictures_is_passed_over_and_types_may_alternate() {
    let (jpeg, png) = (jpeg(b"one"), png(b"two"));
    for padding in [
        &b""[..],
        b"\r\n",
        b"\0\0\0\0\0",
        b"\xFF",
        b"\xFF\xFF\xFF\x00",
        b"\x89PN",
        b"\xFF\x89",
        b"\x89\xFF",
        b"--foo\r\n",
    ] {
        let body = [b"\r\n", &*jpeg, padding, &png, padding, &png, padding, &jpeg, padding, &jpeg, padding].concat();
        let items = [&jpeg, &png, &png, &jpeg, &jpeg].map(picture);
        assert_eq!(split(None, PLENTY, body), items, "{padding:x?}");
    }
}

#[test]
fn a_broken_jpeg_costs_itself_only() {
    let good = jpeg(b"good");
    let scan = good.len() - 6;
    for broken in [
        // No marker where one must be.
        [&good[..2], b"\x00", &good[2..]].concat(),
        [&good[..3], b"\x00", &good[3..]].concat(),
        [&good[..20], b"\x12", &good[20..]].concat(),
        // A length that does not count itself.
        [&good[..2], b"\xFF\xE1\0\x01", &good[2..]].concat(),
        // A reserved marker, and one that ends the scan early.
        [&good[..2], b"\xFF\x02", &good[2..]].concat(),
        [&good[..scan], b"\xFF\x01", &good[scan..]].concat(),
        // What comes after it has a start that no marker follows.
        [&good[..2], b"\x00\xFF\xD8\x00", &good[2..]].concat(),
        // Begun again within its segments, and within its scan.
        good[..20].to_vec(),
        good[..scan].to_vec(),
        [&good[..scan], b"\xFF\xFF"].concat(),
    ] {
        let body = [&good[..], &broken, &good, &good].concat();
        let items = [picture(&good), MALFORMED, picture(&good), picture(&good)];
        assert_eq!(plain(split(None, PLENTY, body)), items, "{broken:x?}");
    }
}

#[test]
fn a_broken_png_costs_itself_only() {
    let good = png(b"good\xFF\xD8\xFF\xE0good");
    for (broken, swallowed) in [
        // A length over 2^31 - 1, and types that are none.
        ([&good[..8], b"\x80\0\0\0", &good[12..]].concat(), 0),
        ([&good[..33], b"\0\0\0\0ID4T", &good[33..]].concat(), 0),
        // Begun again between its chunks, and within the head of one.
        (good[..8].to_vec(), 0),
        (good[..33].to_vec(), 0),
        (good[..36].to_vec(), 0),
        (good[..37].to_vec(), 0),
        // Begun again within the data of one, which then take some of the next picture.
        (good[..45].to_vec(), 1),
    ] {
        let body = [&good[..], &broken, &good, &good].concat();
        let items = [vec![picture(&good), MALFORMED], vec![picture(&good); 2 - swallowed]].concat();
        assert_eq!(plain(split(None, PLENTY, body)), items, "{broken:x?}");
    }
}

#[test]
fn a_body_cut_off_within_a_picture_loses_that_picture() {
    let (jpeg, png) = (jpeg(b"x"), png(b"x"));
    for bytes in [&jpeg, &png] {
        for length in 1..bytes.len() {
            let body = [bytes, &bytes[..length]].concat();
            let (items, reason) = feed(None, PLENTY, &body, || usize::MAX);
            // Up to its whole start it counts as padding.
            let begun = length >= if bytes == &jpeg { 2 } else { 8 };
            let lost = begun.then_some(MALFORMED);
            assert_eq!(plain(items), [Some(picture(bytes)), lost].into_iter().flatten().collect::<Vec<_>>());
            assert_eq!(reason, None);
            assert_eq!(plain(split(None, PLENTY, &bytes[..length])), [MALFORMED]);
        }
    }
    assert_eq!(split(None, PLENTY, "\r\n"), []);
    for (body, item) in [
        ("-", Some(MALFORMED)),
        ("--fo", Some(MALFORMED)),
        ("--foo\r\n", None),
        ("--foo\r\nContent-", Some(MALFORMED)),
        ("--foo\r\nX: y\r\n", Some(MALFORMED)),
        ("--foo\r\n\r\n", Some(MALFORMED)),
        ("--foo\r\n\r\nab", Some(picture("ab"))),
        ("--foo\r\n\r\nab\r\n", Some(picture("ab\r\n"))),
        ("--foo\r\n\r\nab\r\n--fo", Some(picture("ab\r\n--fo"))),
        ("--foo\r\n\r\nab\r\n--foo", Some(picture("ab"))),
        ("--foo\r\n\r\nab\r\n--foo--", Some(picture("ab"))),
        ("--foo\r\nContent-Length: 3\r\n\r\nab", Some(MALFORMED)),
        ("--foo\r\nContent-Length: 2\r\n\r\nab", Some(picture("ab"))),
    ] {
        assert_eq!(plain(split(None, PLENTY, body)), Vec::from_iter(item), "{body:?}");
    }
    assert_eq!(plain(split(Some("foo"), PLENTY, "\u{ff}\u{d8}")), [MALFORMED]);
    assert_eq!(plain(split(Some("foo"), PLENTY, "")), []);
}

#[test]
fn messages_name_what_was_wrong_and_the_limits() {
    assert!(NotAStream::UnknownForm.to_string().contains("JPEG or PNG"));
    assert!(NotAStream::NoBoundary.to_string().contains("65536"));
    assert!(NotAStream::LongHeader.to_string().contains("8192"));
    assert!(NotAStream::ManyHeaders.to_string().contains("64"));
    assert_eq!(Fault::TooLarge.to_string(), "the picture is too large");
    assert_eq!(Fault::Malformed("why").to_string(), "the picture is malformed: why");
}

/// The xorshift of 64 bits: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a [u8]]) -> &'a [u8] {
        choices[self.below(choices.len())]
    }
}

#[test]
fn mangled_streams_neither_panic_nor_pass_the_bounds_nor_depend_on_their_pieces() {
    const TOKENS: &[&[u8]] = &[
        b"\r\n--foo\r\n",
        b"\n--foo\n",
        b"--foo--",
        b"\r\n--fo",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"-",
        b"   ",
        b"Content-Length: 7\r\n",
        b"Content-Length: 300\r\n\r\n",
        b"\xFF\xD8",
        b"\xFF\xD8\xFF",
        b"\xFF\xD9",
        b"\xFF\xDA\0\x02",
        b"\xFF",
        b"\0",
        b"\x89PNG\r\n\x1a\n",
        b"\x89",
        b"\0\0\0\0IEND",
        b"\0\0\x01\0IDAT",
    ];
    let (jpeg, png) = (jpeg(b"\r\n--foo"), png(b"\xFF\xD8\xFF\xD9"));
    let sized = |bytes: &[u8]| {
        let head = format!("Content-Length: {}\r\nX-Timestamp: 1\r\n\r\n", bytes.len());
        [head.as_bytes(), bytes, b"\r\n--foo\r\n"].concat()
    };
    let seeds: [Vec<u8>; 6] = [
        [b"--foo\r\n", &*sized(&jpeg), &sized(&png), &sized(&jpeg)].concat(),
        [b"--foo\r\n", &*bounded(&jpeg), &bounded(&png), &sized(&jpeg)].concat(),
        [b"preamble\n--foo\n\n", &jpeg[..], b"\n--foo\nContent-Length: 2\n\nab\n--foo--\n--foo\n\n", &png].concat(),
        jpeg.repeat(4),
        png.repeat(4),
        [&jpeg[..], &png, b"\r\n", &png, &jpeg, b"\0\0", &jpeg].concat(),
    ];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut pictures, mut refused) = (0, 0);
    for round in 0..2500 {
        let mut body = seeds[round % seeds.len()].clone();
        for _ in 0..random.below(6) {
            let at = random.below(body.len());
            let end = (at + random.below(40)).min(body.len());
            match random.below(6) {
                0 => body.truncate(end),
                1 => drop(body.drain(at..end)),
                2 => drop(body.splice(at..at, random.of(TOKENS).iter().copied())),
                3 => drop(body.splice(at..end, random.of(TOKENS).iter().copied())),
                4 => body.extend_from_within(at..end),
                _ => body.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            }
        }
        let max = [0, 3, 19, 20, 33, 64, 100, 300, PLENTY][random.below(9)];
        let boundary = [None, None, Some("foo"), Some("--foo")][random.below(4)];
        let whole = feed(boundary, max, &body, || usize::MAX);
        assert_eq!(feed(boundary, max, &body, || 1), whole, "{max} {boundary:?} {}", body.escape_ascii());
        for most in [4, 20, 200] {
            let pieces = feed(boundary, max, &body, || 1 + random.below(most));
            assert_eq!(pieces, whole, "{max} {boundary:?} {}", body.escape_ascii());
        }
        let lost = whole.0.iter().filter(|item| matches!(item, Item::Refused(_))).count();
        refused += lost;
        pictures += whole.0.len() - lost;
    }
    assert!(pictures > 1000 && refused > 1000, "{pictures} {refused}");
}

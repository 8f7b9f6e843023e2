//! What is published is what is seen.

use std::{path::Path, time::SystemTime};

use serde_json::{Value, json};

use super::{newest, picture};
use crate::harness::{
    Backend,
    picture::{PHOTO_JPEG, PHOTO_PNG},
    robot::Ros,
};

/// The colours of the patches in `tests/programs/robot_pictures.py`.
const COLOURS: [[u8; 3]; 12] = [
    [200, 40, 40],
    [40, 200, 40],
    [40, 40, 200],
    [230, 230, 230],
    [20, 20, 20],
    [128, 128, 128],
    [200, 200, 40],
    [40, 200, 200],
    [200, 40, 200],
    [250, 130, 30],
    [30, 130, 250],
    [90, 60, 30],
];
/// What a JPEG of quality 80 may change in the middle of a patch, in each colour: its steps there are 6 wide for grey and 7
/// for colours, and a colour is a sum of them.
const TOLERANCE: u8 = 8;

/// Red, green and blue in the middle of each patch, as the mean of a few pixels.
fn patches(jpeg: &[u8]) -> Vec<[u8; 3]> {
    let picture = image::load_from_memory(jpeg).unwrap().to_rgb8();
    let (width, height) = picture.dimensions();
    let middle = |patch: u32| {
        let (x, y) = ((patch % 4 * 2 + 1) * width / 8, (patch / 4 * 2 + 1) * height / 6);
        let around = (0..9).map(|it| picture.get_pixel(x + it % 3, y + it / 3).0);
        let sums = around.fold([0_u32; 3], |sums, pixel| std::array::from_fn(|it| sums[it] + u32::from(pixel[it])));
        sums.map(|sum| (sum / 9) as u8)
    };
    (0..12).map(middle).collect()
}

#[track_caller]
fn assert_shows(jpeg: &[u8], expected: &[[u8; 3]], what: &str) {
    for (patch, (seen, wanted)) in patches(jpeg).iter().zip(expected).enumerate() {
        let off = (0..3).map(|it| seen[it].abs_diff(wanted[it])).max().unwrap();
        assert!(off <= TOLERANCE, "{what}: patch {patch} is {seen:?}, where {wanted:?} was published");
    }
}

/// Topics by name, each with what is published and the colours that are to be seen.
fn topics() -> Vec<(String, Value, Vec<[u8; 3]>)> {
    let coloured = ["rgb8", "bgr8", "rgba8", "bgra8", "yuv422", "yuv422_yuy2"].map(str::to_owned).into_iter();
    let bayer = ["rggb", "bggr", "gbrg", "grbg"];
    let bayer = bayer.iter().flat_map(|tiles| [8, 16].map(|bits| format!("bayer_{tiles}{bits}")));
    let grey: Vec<_> = COLOURS.iter().map(|colour| [colour[1]; 3]).collect();
    let mut topics = Vec::new();
    for encoding in coloured.chain(bayer) {
        topics.push((format!("/enc/{encoding}"), picture(&encoding, 160, 120), COLOURS.to_vec()));
    }
    for encoding in ["mono8", "mono16"] {
        topics.push((format!("/enc/{encoding}"), picture(encoding, 160, 120), grey.clone()));
    }
    // Rows that are longer than their pixels, sizes that fill no block, numbers that begin with the other byte.
    for (name, encoding, more) in [
        ("odd_step", "rgb8", json!({"rubbish": 7})),
        ("odd_size", "bgr8", json!({"width": 147, "height": 93})),
        ("odd_yuv", "yuv422", json!({"width": 150, "rubbish": 2})),
        ("big", "mono16", json!({"is_bigendian": true, "rubbish": 3})),
        ("big_bayer", "bayer_grbg16", json!({"is_bigendian": true})),
    ] {
        let mut published = picture(encoding, 160, 120);
        published.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let expected = if encoding == "mono16" { grey.clone() } else { COLOURS.to_vec() };
        topics.push((format!("/enc/{name}"), published, expected));
    }
    topics
}

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_is_seen_in_the_colours_that_were_published() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let _bridge = ros.bridge(&server.url(""), &["--topic", "/enc/*={topic}"]);
        let mut robot = ros.robot().await;
        let topics = topics();
        let published: Value = topics.iter().map(|(topic, picture, _)| (topic.clone(), picture.clone())).collect();
        robot.publish(published, 5.0, None).await;
        for (topic, _, expected) in &topics {
            let session = topic[1..].replace('/', ".");
            let answer = newest(&server, &session).await;
            assert_eq!(answer.header("content-type"), "image/jpeg");
            assert_shows(&answer.body, expected, topic);
            // It was stamped by the robot, on this same machine.
            let stamp: f64 = answer.header("x-frame-timestamp").parse().unwrap();
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
            assert!((0.0..10.0).contains(&(now - stamp)), "{stamp} at {now}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_is_red_when_near_and_blue_when_far_and_black_where_there_is_none() {
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[]).await;
        let _bridge = ros.bridge(&server.url(""), &["--topic", "/depth/*={topic}", "--depth-range", "1:9"]);
        let mut robot = ros.robot().await;
        let both = json!({"/depth/mm": picture("16UC1", 160, 120), "/depth/m": picture("32FC1", 160, 120)});
        robot.publish(both, 5.0, None).await;
        let (millimetres, metres) = (newest(&server, "depth.mm").await, newest(&server, "depth.m").await);
        let seen = patches(&millimetres.body);
        assert_shows(&metres.body, &seen, "metres beside millimetres");
        // The patches are 0 to 11 m away.
        assert!(seen[0].iter().all(|shade| *shade < 20), "none: {:?}", seen[0]);
        assert!(seen[1][0] > 100 && seen[1][2] < 60, "1 m: {:?}", seen[1]);
        assert!(seen[5][1] > 200, "5 m: {:?}", seen[5]);
        assert!(seen[9][2] > seen[9][0] + 40, "9 m: {:?}", seen[9]);
        assert!((0..3).all(|it| seen[9][it].abs_diff(seen[11][it]) <= TOLERANCE), "9 m and 11 m");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_pass_untouched_and_others_are_named() {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures").join(name);
    for ros in Ros::all().await {
        let server = Backend::Memory.server(&[("MIMETYPE", "auto")]).await;
        // What the third is called promises another type than it has: what is announced counts.
        let topics =
            ["/a/compressed=jpeg", "/b/compressed=png", "/c=jpeg-2", "/d/compressed=none", "/e/compressed=raw"];
        let arguments: Vec<_> = topics.iter().flat_map(|topic| ["--topic", topic]).chain(["--width", "100"]).collect();
        let mut bridge = ros.bridge(&server.url(""), &arguments);
        let mut robot = ros.robot().await;
        let published = json!({
            "/a/compressed": {"file": file("chelsea.jpg"), "format": "rgb8; jpeg compressed bgr8"},
            "/b/compressed": {"file": file("chelsea.png"), "format": "png"},
            "/c": {"file": file("chelsea.jpg"), "format": ""},
            "/d/compressed": {"file": file("../it/ros.rs"), "format": "16UC1; compressedDepth"},
            "/e/compressed": picture("rgb8", 160, 120),
        });
        robot.publish(published, 5.0, None).await;
        for (session, kind, bytes) in
            [("jpeg", "image/jpeg", PHOTO_JPEG), ("png", "image/png", PHOTO_PNG), ("jpeg-2", "image/jpeg", PHOTO_JPEG)]
        {
            let answer = newest(&server, session).await;
            assert_eq!(answer.header("content-type"), kind);
            assert!(answer.body == bytes, "{session} was changed");
        }
        // Pixels under such a name are pixels, and smaller where that was asked for.
        let made = image::load_from_memory(&newest(&server, "raw").await.body).unwrap();
        assert_eq!((made.width(), made.height()), (100, 75));
        bridge.line_with("compressedDepth").await;
    }
}

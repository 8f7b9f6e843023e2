//! Which pictures are carried, and what stands for none.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use super::{Faults, Texts, Variable};
use crate::{frame::ImageType, placeholder};

pub(super) const VARIABLES: &[Variable] = &[
    ("MIMETYPE", "image/jpeg", "type of the pictures: image/jpeg, png, gif, webp, avif, bmp, or auto for any of them"),
    ("NODATA_HEIGHT", "720", "height of the No Data picture in pixels, 1 to 8192"),
    ("NODATA_ASPECT_RATIO", "0.5625", "its height over its width, also written 9/16"),
];

#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    mimetype: Option<String>,
    nodata_height: Option<String>,
    nodata_aspect_ratio: Option<String>,
}

/// What the pictures are.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// `MIMETYPE`.
    pub carried: Carried,
    /// Width and height of the No Data picture, in pixels.
    pub nodata_size: placeholder::Size,
}

/// `MIMETYPE`: which pictures are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// One type, sent back under the name that was configured (`image/jpg` for one).
    One(ImageType, String),
    /// Any type, each sent back under its own name.
    Any,
}

impl Carried {
    /// Whether pictures of this type are carried.
    #[must_use]
    pub fn accepts(&self, kind: ImageType) -> bool {
        match self {
            Self::One(carried, _) => *carried == kind,
            Self::Any => true,
        }
    }

    /// The `Content-Type` of a picture.
    #[must_use]
    pub fn content_type(&self, kind: ImageType) -> &str {
        match self {
            Self::One(carried, name) if *carried == kind => name,
            _ => kind.mime(),
        }
    }

    /// The `Content-Type` of every picture, if there is one for all.
    #[must_use]
    pub fn common_type(&self) -> Option<&str> {
        match self {
            Self::One(_, name) => Some(name),
            Self::Any => None,
        }
    }

    /// The type of the No Data picture: one that can be drawn here and that clients of these pictures can read.
    #[must_use]
    pub fn placeholder_format(&self) -> placeholder::Format {
        match self {
            Self::One(ImageType::Jpeg, _) | Self::Any => placeholder::Format::Jpeg,
            Self::One(..) => placeholder::Format::Png,
        }
    }
}

/// What is expected, in words for an error.
impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(_, name) => f.write_str(name),
            Self::Any => f.write_str("image/jpeg, image/png, image/gif, image/webp, image/avif or image/bmp"),
        }
    }
}

impl FromStr for Carried {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "auto" => Ok(Self::Any),
            "image/jpg" => Ok(Self::One(ImageType::Jpeg, text.to_owned())),
            other => {
                let kind = ImageType::ALL.into_iter().find(|kind| kind.mime() == other).ok_or(())?;
                Ok(Self::One(kind, text.to_owned()))
            }
        }
    }
}

impl Pictures {
    pub(super) fn read(texts: &Texts, faults: &mut Faults) -> Self {
        let env: Environment = texts.read();
        const SIDE: u32 = placeholder::MAX_SIDE;
        let default = Carried::One(ImageType::Jpeg, ImageType::Jpeg.mime().to_owned());
        let carried = faults.read(
            "MIMETYPE",
            env.mimetype.as_ref(),
            default,
            "image/jpeg, image/jpg, image/png, image/gif, image/webp, image/avif, image/bmp or auto",
            |text| text.parse().ok(),
        );
        let height = faults.read(
            "NODATA_HEIGHT",
            env.nodata_height.as_ref(),
            720,
            &format!("pixels from 1 to {SIDE}"),
            |text| text.parse().ok().filter(|height| (1..=SIDE).contains(height)),
        );
        let default = placeholder::Size::from_height(height, 0.5625);
        let allowed = format!(
            "height over width as a number like 0.5625 or a fraction like 9/16 that makes a height of {height} a width of 1 to {SIDE}"
        );
        let nodata_size =
            faults.read("NODATA_ASPECT_RATIO", env.nodata_aspect_ratio.as_ref(), default, &allowed, |text| {
                Some(placeholder::Size::from_height(height, placeholder::parse_ratio(text)?)).filter(Option::is_some)
            });
        // Only a default can be missing here, for a height that is too large for the default ratio.
        let nodata_size = nodata_size.unwrap_or_else(|| {
            faults.add(
                "NODATA_HEIGHT",
                &height.to_string(),
                format!("a height that makes a width of at most {SIDE}; see NODATA_ASPECT_RATIO"),
            );
            placeholder::Size::default()
        });
        Self { carried, nodata_size }
    }
}

//! Short texts.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use serde::{Serialize, Serializer};

/// Bytes that are held in place. Names, hosts, ids and most paths are no longer.
const IN_PLACE: usize = 46;

/// A text that is mostly short: up to 46 bytes are held in place, longer ones apart. Whoever keeps something of every
/// request asks nobody for memory by it.
#[derive(Clone)]
pub struct Text(Held);

#[derive(Clone)]
enum Held {
    /// So many bytes of these; they are UTF-8.
    Here(u8, [u8; IN_PLACE]),
    Apart(Box<str>),
}

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Held::Here(..) => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Held::Apart(text) => text,
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Here(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Held::Apart(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; IN_PLACE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self(Held::Here(length, bytes))
            }
            _ => Self(Held::Apart(text.into())),
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        if text.len() > IN_PLACE {
            Self(Held::Apart(text.into()))
        } else {
            Self::from(text.as_str())
        }
    }
}

impl From<Box<str>> for Text {
    fn from(text: Box<str>) -> Self {
        Self::from(String::from(text))
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::from(text),
            Cow::Owned(text) => Self::from(text),
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self(Held::Here(0, [0; IN_PLACE]))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_short_is_held_in_place() {
        assert_eq!(size_of::<Text>(), IN_PLACE + 2);
        for (length, here) in [(0, true), (IN_PLACE, true), (IN_PLACE + 1, false), (1000, false)] {
            for text in [Text::from("x".repeat(length)), Text::from(&*"x".repeat(length))] {
                assert_eq!(matches!(text.0, Held::Here(..)), here, "{length}");
                assert_eq!(text.len(), length);
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_is_what_it_was_made_of(text in "\\PC{0,60}", other in "\\PC{0,2}") {
            let short = Text::from(text.as_str());
            prop_assert_eq!(&*short, text.as_str());
            prop_assert_eq!(&short, &Text::from(text.clone()));
            prop_assert_eq!(short == other.as_str(), text == other);
            prop_assert_eq!(serde_json::to_string(&short).unwrap(), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(format!("{short} {short:?}"), format!("{text} {text:?}"));
        }
    }
}

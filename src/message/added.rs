//! Fields that the gateway adds to a head on its way, kept beside the client's own: to put each into the map of these would
//! cost more than to send it.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields, each of which takes the place of those of its name in the head that it goes with.
#[derive(Clone, Debug, Default)]
pub struct Added {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// How long the names are, a bit for each length modulo 64: what most other names fail at.
    lengths: u64,
}

impl Added {
    /// None, with room for those of most requests.
    pub fn with_room() -> Self {
        Self { fields: Vec::with_capacity(ROOM), lengths: 0 }
    }

    /// Adds a field, in the place of one of that name that was added before.
    pub fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        let bit = length(name);
        if self.lengths & bit != 0
            && let Some((_, before)) = self.fields.iter_mut().find(|(before, _)| before == name)
        {
            *before = value;
            return;
        }
        self.lengths |= bit;
        self.fields.push((name.clone(), value));
    }

    /// The fields, each with a name of its own.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.fields.iter().map(|(name, value)| (name, value))
    }

    /// Whether a field of the head that is called so gives way to one of these.
    pub fn replaces(&self, name: &HeaderName) -> bool {
        self.lengths & length(name) != 0 && self.fields.iter().any(|(added, _)| added == name)
    }

    /// Puts them into `headers`; none is left beside it.
    pub fn settle(&mut self, headers: &mut HeaderMap) {
        self.lengths = 0;
        for (name, value) in self.fields.drain(..) {
            headers.insert(name, value);
        }
    }

    /// Puts them into `headers` as well.
    pub fn copy_into(&self, headers: &mut HeaderMap) {
        for (name, value) in self.iter() {
            headers.insert(name, value.clone());
        }
    }
}

fn length(name: &HeaderName) -> u64 {
    1 << (name.as_str().len() % 64)
}

/// How many fields most requests are given at most: three of the way, and who is there.
const ROOM: usize = 7;

#[cfg(test)]
mod tests {
    use http::header::{HOST, TE};

    use super::*;

    const USER: HeaderName = HeaderName::from_static("x-forwarded-user");

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn what_is_added_takes_the_place_of_what_is_there() {
        let mut added = Added::with_room();
        added.set(&USER, value("mallory"));
        added.set(&USER, value("alice"));
        added.set(&HOST, value("app"));
        assert!(added.iter().eq([(&USER, &value("alice")), (&HOST, &value("app"))]));
        assert!(added.replaces(&USER) && added.replaces(&HOST));
        assert!(!added.replaces(&TE));
        // As long as one of them, and 64 longer than another.
        assert!(!added.replaces(&HeaderName::from_static("x-forwarded-uses")));
        let long = "x".repeat(HOST.as_str().len() + 64);
        assert!(!added.replaces(&HeaderName::try_from(long).unwrap()));

        let mut headers: HeaderMap = [(USER, value("mallory")), (TE, value("trailers"))].into_iter().collect();
        headers.append(USER, value("eve"));
        let mut copied = headers.clone();
        added.copy_into(&mut copied);
        added.settle(&mut headers);
        assert_eq!(headers, copied);
        assert_eq!(headers.get_all(USER).iter().collect::<Vec<_>>(), ["alice"]);
        assert_eq!((headers.len(), headers[HOST].as_bytes()), (3, &b"app"[..]));
        assert!(added.iter().next().is_none() && !added.replaces(&USER));
    }
}

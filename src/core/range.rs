//! Which bytes of a file a GET asks for.
//!
//! One range, or all of it: a request for several ranges is answered with the whole file, as
//! RFC 9110 #14.2 lets a server do. Pure: text and a size in, a decision out.

/// What to send for a file of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole file, status 200.
    Whole,
    /// Bytes `first..=last`, status 206. Invariant: `first <= last < size_bytes`.
    Part {
        /// The first byte's index.
        first: u64,
        /// The last byte's index.
        last: u64,
    },
    /// Nothing: no byte of the range is in the file, status 416.
    Unsatisfiable,
}

/// Reads a `Range` header against a file of `size_bytes`.
///
/// A header that is absent, malformed, of another unit or of several ranges selects the whole
/// file: RFC 9110 #14.2 says to ignore a Range that is not understood.
pub fn select(range_header: Option<&str>, size_bytes: u64) -> Selection {
    let Some((first, last)) = range_header.and_then(parse) else {
        return Selection::Whole;
    };
    match (first, last) {
        // `bytes=5-9` and `bytes=5-`
        (Some(first), last) if first < size_bytes => {
            let last = last.unwrap_or(u64::MAX).min(size_bytes - 1);
            Selection::Part { first, last }
        }
        // `bytes=-5`: the last five. Of an empty file, or the last none: no byte at all.
        (None, Some(n_bytes)) if 0 < n_bytes && 0 < size_bytes => Selection::Part {
            first: size_bytes.saturating_sub(n_bytes),
            last: size_bytes - 1,
        },
        _ => Selection::Unsatisfiable,
    }
}

/// Splits `bytes=FIRST-LAST`; either end may be missing, not both. `None` where it is not that.
fn parse(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let end = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    match (end(first)?, end(last)?) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        ends => Some(ends),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only place that calls `select`: rows are `header, size_bytes, what is sent`.
    #[track_caller]
    fn check(header: &str, size_bytes: u64, sent: &str) {
        let got = match select(Some(header), size_bytes) {
            Selection::Whole => "200".to_owned(),
            Selection::Part { first, last } => format!("206 {first}-{last}"),
            Selection::Unsatisfiable => "416".to_owned(),
        };
        assert_eq!(got, sent, "{header} of {size_bytes}");
    }

    #[test]
    fn one_range() {
        check("bytes=0-9", 100, "206 0-9");
        check("bytes=90-", 100, "206 90-99");
        check("bytes=90-200", 100, "206 90-99");
        check("bytes=-10", 100, "206 90-99");
        check("bytes=-200", 100, "206 0-99");
    }

    #[test]
    fn no_byte_in_the_file() {
        check("bytes=100-", 100, "416");
        check("bytes=-0", 100, "416");
        check("bytes=0-", 0, "416");
    }

    #[test]
    fn not_understood_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=9-1",
            "lines=1-2",
            "bytes=0-1,4-5",
        ] {
            check(header, 100, "200");
        }
        check("bytes=+1-2", 100, "200");
        check("bytes=0-99999999999999999999999", 100, "200");
        assert_eq!(select(None, 100), Selection::Whole);
    }
}

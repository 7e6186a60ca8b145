use core::error::Error;

/// Returns `error`, its source, the source of that, and so on.
#[must_use]
pub fn chain<'a>(mut error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut chain = vec![error];
    while let Some(source) = error.source() {
        chain.push(source);
        error = source;
    }
    chain
}

/// Checks that neither `error` nor any of its sources repeats the sentence of its own source.
///
/// # Panics
///
/// If one does.
pub fn assert_no_repetition(error: &(dyn Error + 'static)) {
    for error in chain(error) {
        if let Some(source) = error.source() {
            assert!(!error.to_string().contains(&source.to_string()), "`{error}` repeats `{source}`");
        }
    }
}

#[cfg(test)]
mod tests {
    use core::fmt;
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn an_error_with_its_own_sentence_is_accepted() {
        assert_no_repetition(&Outer("the log cannot be read", io::Error::other("no device")));
    }

    #[test]
    #[should_panic = "repeats"]
    fn an_error_that_repeats_its_source_is_noticed() {
        assert_no_repetition(&Outer("cannot read: no device", io::Error::other("no device")));
    }
}

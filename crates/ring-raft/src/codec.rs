//! How entries become bytes.

use std::io;

/// openraft 0.9: names its types to a [`Codec`].
#[derive(Clone, Copy, Debug)]
pub enum V0_9 {}

/// openraft 0.10: names its types to a [`Codec`].
#[derive(Clone, Copy, Debug)]
pub enum V0_10 {}

/// The types of a Raft application. Implemented for each `RaftTypeConfig`, of openraft 0.9 by [`V0_9`] and of openraft
/// 0.10 by [`V0_10`], as far as the features of this crate ask for them.
pub trait TypeConfig<V> {
    /// An entry of the log.
    type Entry;
}

/// How entries become bytes, where they lie in the log, and entries again.
///
/// ```
/// # #[cfg(feature = "openraft-0_9")]
/// # mod program {
/// use std::io;
/// use openraft_0_9::{Entry, RaftTypeConfig};
/// use ring_raft::{Codec, Postcard, V0_9};
///
/// /// Postcard, and a byte that names the format.
/// struct Versioned;
///
/// impl<C: RaftTypeConfig<Entry = Entry<C>>> Codec<C, V0_9> for Versioned {
///     fn size(entry: &Entry<C>) -> io::Result<usize> {
///         Ok(1 + <Postcard as Codec<C, V0_9>>::size(entry)?)
///     }
///
///     fn encode_into(entry: &Entry<C>, bytes: &mut [u8]) -> io::Result<()> {
///         bytes[0] = 1;
///         <Postcard as Codec<C, V0_9>>::encode_into(entry, &mut bytes[1..])
///     }
///
///     fn decode(bytes: &[u8]) -> io::Result<Entry<C>> {
///         match bytes {
///             [1, entry @ ..] => <Postcard as Codec<C, V0_9>>::decode(entry),
///             _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown format")),
///         }
///     }
/// }
/// # }
/// ```
pub trait Codec<C: TypeConfig<V>, V = V0_10>: Send + Sync + 'static {
    /// How many bytes the entry takes.
    ///
    /// # Errors
    ///
    /// If it cannot be encoded. Nothing of its batch is appended then.
    fn size(entry: &C::Entry) -> io::Result<usize>;

    /// Encodes an entry into exactly as many bytes: the log's own memory, zeros at first.
    ///
    /// # Errors
    ///
    /// If it cannot be encoded. Nothing of its batch is appended then, and the log goes on.
    fn encode_into(entry: &C::Entry, bytes: &mut [u8]) -> io::Result<()>;

    /// Decodes what [`encode_into`](Self::encode_into) has written.
    ///
    /// # Errors
    ///
    /// If the bytes are no entry.
    fn decode(bytes: &[u8]) -> io::Result<C::Entry>;
}

/// The codec for types that implement `serde`'s traits: the [postcard](https://docs.rs/postcard) format.
#[derive(Clone, Copy, Debug)]
pub enum Postcard {}

#[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
mod with_serde {
    use std::io;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::{Codec, Postcard, TypeConfig};

    fn invalid(error: postcard::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
        postcard::to_stdvec(value).map_err(invalid)
    }

    pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(invalid)?;
        if rest.is_empty() { Ok(value) } else { Err(invalid(postcard::Error::DeserializeBadEncoding)) }
    }

    impl<V, C: TypeConfig<V, Entry: Serialize + DeserializeOwned>> Codec<C, V> for Postcard {
        fn size(entry: &C::Entry) -> io::Result<usize> {
            postcard::experimental::serialized_size(entry).map_err(invalid)
        }

        fn encode_into(entry: &C::Entry, bytes: &mut [u8]) -> io::Result<()> {
            let room = bytes.len();
            let written = postcard::to_slice(entry, bytes).map_err(invalid)?.len();
            if written == room { Ok(()) } else { Err(invalid(postcard::Error::SerializeBufferFull)) }
        }

        fn decode(bytes: &[u8]) -> io::Result<C::Entry> {
            decode(bytes)
        }
    }
}

#[cfg(any(feature = "openraft-0_9", feature = "openraft-0_10"))]
pub(crate) use with_serde::{decode, encode};

//! Other people's logs, each as its documentation suggests, with sizes like ours.

mod aeron;
mod glommio;
mod okaywal;
mod raft_engine;

pub use self::aeron::AERON;
pub use self::glommio::GLOMMIO;
pub use self::okaywal::OKAYWAL;
pub use self::raft_engine::{RAFT_ENGINE, RAFT_ENGINE_STREAMING};

//! The wire format of Evenkeel: gRPC package `evenkeel.v1`, generated from `evenkeel/v1/*.proto`.
//!
//! Nothing here knows the domain: both sides check what they receive where they receive it.

/// Package `evenkeel.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("evenkeel.v1");
}

/// The compiled descriptors, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest message that is sent or accepted, in bytes: a pack's results with predictions fit many times.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Size of the chunks in which files travel, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;

//! The pure core that coordinator and worker share.
//!
//! Nothing here opens a socket, holds a tensor, reads a clock or draws from a random source:
//! times and seeds are arguments, files arrive as bytes.
//!
//! | module | holds |
//! |---|---|
//! | [`encoder`] | pre-trained encoders: configuration, tensors, what a file holds |
//! | [`failure`] | kinds of failure and what each means for the trials |
//! | [`spec`] | the user's file: parsing with located errors, validation, canonical form, JSON Schema |
//! | [`grid`] | trial number ⇄ coordinates, in constant time and memory |
//! | [`trial`] | what one trial is once its coordinates are resolved, its id and its cost |
//! | [`inputs`] | what is known of the files a sweep works on |
//! | [`id`] | newtypes for identifiers |
//! | [`seed`] | the counter-based generator behind every random number |
//! | [`table`] | feature files (CSV, Parquet, `.npy`, gzip) from bytes to a checked table |
//! | [`text`] | text tasks: official and own files, and the official metrics |
//! | [`results`] | what a trial yields, and its Arrow form |
//! | [`stats`] | streaming statistics |
//! | [`theory`] | the bounds that measurements are shown beside |
//!
//! The feature `runtime` adds the one part that does touch the world, shared by both programs.

mod dictionary;
pub mod encoder;
pub mod failure;
pub mod grid;
pub mod id;
pub mod inputs;
pub mod results;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod seed;
pub mod spec;
pub mod stats;
pub mod table;
pub mod text;
pub mod theory;
pub mod trial;

/// Version of the protocol between coordinator, workers and clients. Peers of another version are refused.
pub const PROTOCOL_VERSION: u32 = 2;
/// Version of everything the store holds. A newer one is refused, an older one is read.
pub const FORMAT_VERSION: u32 = 2;

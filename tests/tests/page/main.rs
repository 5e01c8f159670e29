//! The page and the JSON API, over the real programs, in a real browser.
//!
//! | module | holds |
//! |---|---|
//! | `cluster` | a coordinator with its workers, and what it is asked |
//! | `api` | the JSON API beside its description, the command line and the results |
//! | `browse` | what users do on the page |
//! | `guard` | tokens, other sites, a coordinator that stands by |

mod api;
mod browse;
mod cluster;
mod guard;

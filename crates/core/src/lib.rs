//! What hookcast knows without doing anything: time as a value, events and definitions, formats, signatures, filters and
//! templates. Owns data and the rules over it; must not know a runtime, a socket, a file or a database.

// Level 0: data
pub mod clock;
pub mod model;
pub mod units;
// Level 1: rules over data
pub mod codec;
pub mod filter;
pub mod json;
pub mod panics;
pub mod signature;
pub mod template;

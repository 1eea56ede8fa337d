//! What does not pass: nothing arrives, and the reason is counted.

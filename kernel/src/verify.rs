//! Proof of the live map: what the tables say, what the MMU says, what memblock says, and what an access does, agree.

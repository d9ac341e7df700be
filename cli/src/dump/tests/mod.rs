//! Trees in memory that is made for them: by linmap's builders, by hand, and at random.

mod compared;
mod hostile;
mod judged;
mod machine;
mod oracle;

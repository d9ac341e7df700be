//! A kernel, and what it is without an instruction.

use std::path::Path;

use super::image::Kernel;
use super::instruction::{Change, Instruction};
use super::recording::{Recording, Site};

/// A mutant: which instruction of a kind in a function, counted from 0 among those of the
/// recording, is what instead, and which rule is broken then.
pub type Mutant = (&'static str, Instruction, usize, Change, Option<&'static str>);

/// Has `boot` record the Image at a path: the control, whose mistakes are in functions of `known`,
/// and the mutants. Each mutant breaks its rule in a place where the control does not.
///
/// # Panics
/// When one of them is judged in another way, or does not come by its instruction.
pub fn judge_mutants(kernel: &Kernel, known: &[&str], mutants: &[Mutant], boot: impl Fn(&Path) -> Recording) {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("Image");
    kernel.write(&image, &[]);
    let control = boot(&image);
    let is_known = |function: &String| known.iter().any(|of| function.starts_with(of));
    assert!(
        control.mistakes.iter().all(|(_, function)| is_known(function)),
        "the control: {:?}",
        control.mistakes
    );
    println!("the control: {} events", control.events);
    for &(function, instruction, nth, change, rule) in mutants {
        let name = format!("{function}, {instruction:?} {nth}, {change:?}");
        let sites = control.sites(kernel, function, instruction);
        let Some(&Site { pc, count }) = sites.get(nth) else { panic!("{name}: no such site: {sites:x?}") };
        kernel.write_mutant(&image, pc, change);
        let mutant = boot(&image);
        // In the functions of `known` too, a rule that the control keeps is found.
        let found: Vec<_> = mutant.mistakes.difference(&control.mistakes).collect();
        // It came by there, where a barrier around may be none of an edit's without the
        // instruction, and that was not what it had been.
        assert!(mutant.around(kernel, pc) > 0 || !found.is_empty(), "{name}: not executed");
        assert_eq!(mutant.has(pc), change == Change::Local, "{name}: is as before");
        println!("{name}: executed {count} times in the control, found {found:?}");
        match rule {
            Some(rule) => assert!(found.iter().any(|(of, _)| of == rule), "{name}: {:?}", mutant.mistakes),
            None => assert!(found.iter().all(|(_, function)| is_known(function)), "{name}: {found:?}"),
        }
    }
}

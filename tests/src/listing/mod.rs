//! The system instructions of an assembly source, in the order they stand in, so that the kernel's
//! own instructions can be run against a machine model instead of a copy of them.
//!
//! The reader knows the instructions that change, order or drop translations, and those that leave
//! a straight line. What is left out is everything that only computes, and branches to a label,
//! taken or not. Nothing of a system instruction is guessed: a register, an operation or a barrier
//! that it does not know is an error. Operands stay as they are written, since only the caller of
//! the routine knows what a register holds.

mod instruction;

use thiserror::Error;

pub use instruction::{Dc, Dsb, Instruction, Register, Tlbi};

/// Why a source can't be read. Lines are counted from 1.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ListingError {
    /// A system instruction, or a part of one, that the reader does not know.
    #[error("line {line}: the reader does not know `{text}`")]
    Unknown {
        /// The line.
        line: usize,
        /// The instruction as written.
        text: String,
    },
    /// A system instruction, other than `dc`, in the body of a macro, a repetition or a condition,
    /// which the reader does not expand.
    #[error(
        "line {line}: `{text}` stands in a macro, a repetition or a condition, which the reader does not \
         expand"
    )]
    InBody {
        /// The line.
        line: usize,
        /// The instruction as written.
        text: String,
    },
}

/// Reads `source`, in the syntax of the GNU assembler for AArch64.
///
/// # Errors
/// [`ListingError`], for the first line that can't be read.
pub fn read(source: &str) -> Result<Vec<Instruction<'_>>, ListingError> {
    let mut listing = Vec::new();
    // How many bodies of macros, repetitions and conditions are open.
    let mut bodies = 0usize;
    for (index, line) in source.lines().enumerate() {
        let line_number = index + 1;
        let unknown = |text: &str| ListingError::Unknown { line: line_number, text: text.to_owned() };
        let code = line.split_once("//").map_or(line, |(code, _)| code);
        if code.contains("/*") {
            return Err(unknown(code.trim()));
        }
        for statement in code.split(';') {
            let (labels, statement) = split_labels(statement);
            if bodies == 0 {
                listing.extend(labels.into_iter().map(Instruction::Label));
            }
            match statement.split_whitespace().next() {
                Some(".macro" | ".rept" | ".if") => bodies += 1,
                Some(".endm" | ".endr" | ".endif") => {
                    bodies = bodies.checked_sub(1).ok_or_else(|| unknown(statement))?;
                }
                // Other conditions, and text that is not here at all.
                Some(word) if [".if", ".irp", ".include"].iter().any(|start| word.starts_with(start)) => {
                    return Err(unknown(statement));
                }
                _ => {
                    let parsed = instruction(statement).map_err(|Unknown| unknown(statement))?;
                    // How often lines are cleaned concerns no translation.
                    if bodies > 0 && matches!(parsed, Some(Instruction::Dc { .. })) {
                        continue;
                    }
                    if parsed.is_some() && bodies > 0 {
                        return Err(ListingError::InBody { line: line_number, text: statement.to_owned() });
                    }
                    listing.extend(parsed);
                }
            }
        }
    }
    Ok(listing)
}

/// The labels at the beginning of a statement, and the rest.
fn split_labels(statement: &str) -> (Vec<&str>, &str) {
    let mut labels = Vec::new();
    let mut rest = statement.trim();
    while let Some((label, after)) = rest.split_once(':')
        && !label.is_empty()
        && label.chars().all(|c| c.is_ascii_alphanumeric() || "_.$".contains(c))
    {
        labels.push(label);
        rest = after.trim();
    }
    (labels, rest)
}

struct Unknown;

/// The system instruction that `statement` is. `None` for one that only computes, and for a
/// statement that is not an instruction.
fn instruction(statement: &str) -> Result<Option<Instruction<'_>>, Unknown> {
    let (mnemonic, operands) = statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
    let operands = operands.trim();
    let (first, second) = match operands.split_once(',') {
        Some((first, second)) => (first.trim(), Some(second.trim())),
        None => (operands, None),
    };
    let instruction = match (mnemonic.to_ascii_lowercase().as_str(), first, second) {
        ("msr", register, Some(value)) => {
            Instruction::Msr { register: Register::from_text(register).ok_or(Unknown)?, value }
        }
        ("tlbi", operation, operand) => {
            let operation = Tlbi::from_text(operation).ok_or(Unknown)?;
            let by_address = matches!(operation, Tlbi::Vaae1is | Tlbi::Vaale1is);
            if operand.is_some() != by_address {
                return Err(Unknown);
            }
            Instruction::Tlbi { operation, operand }
        }
        ("dsb", kind, None) => Instruction::Dsb(Dsb::from_text(kind).ok_or(Unknown)?),
        ("isb", "", None) => Instruction::Isb,
        ("ic", operation, None) if operation.eq_ignore_ascii_case("iallu") => Instruction::IcIallu,
        ("dc", operation, Some(address)) => {
            Instruction::Dc { operation: Dc::from_text(operation).ok_or(Unknown)?, address }
        }
        ("br", register, None) => Instruction::Br(register),
        ("bl", label, None) => Instruction::Bl(label),
        ("ret", "", None) => Instruction::Ret("x30"),
        ("ret", register, None) => Instruction::Ret(register),
        ("eret", "", None) => Instruction::Eret,
        ("hvc", immediate, None) => Instruction::Hvc(immediate),
        ("smc", immediate, None) => Instruction::Smc(immediate),
        (
            "msr" | "msrr" | "dsb" | "dmb" | "isb" | "ic" | "dc" | "at" | "sys" | "sysp" | "tlbip" | "br"
            | "bl" | "blr" | "ret" | "eret" | "hvc" | "smc" | "svc",
            ..,
        ) => return Err(Unknown),
        // Reading a register changes nothing.
        _ => return Ok(None),
    };
    Ok(Some(instruction))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELOCATE: &str = include_str!("../../../crates/relocate/src/relocate.S");
    const EL2_EXIT: &str = include_str!("../../../crates/relocate/src/el2_exit.S");
    const ENTRY: &str = include_str!("../../../kernel/src/boot/entry.S");
    const EARLY_TABLES: &str = include_str!("../../../kernel/src/boot/early_tables.S");
    const EL2_STUB: &str = include_str!("../../../kernel/src/arch/el2_stub.S");
    const VECTORS: &str = include_str!("../../../kernel/src/arch/vectors.S");
    const PEN: &str = include_str!("../../../kernel/src/smp/pen.S");
    const SECONDARY: &str = include_str!("../../../kernel/src/smp/secondary.S");

    const VMALLE1: Instruction<'_> = Instruction::Tlbi { operation: Tlbi::Vmalle1, operand: None };

    const fn msr(register: Register, value: &str) -> Instruction<'_> {
        Instruction::Msr { register, value }
    }

    /// The instructions after the first label `name`, up to the next label that is not local.
    fn routine<'l>(listing: &'l [Instruction<'l>], name: &str) -> &'l [Instruction<'l>] {
        let start = listing.iter().position(|i| *i == Instruction::Label(name)).expect("the label") + 1;
        let global = |i: &Instruction<'_>| matches!(i, Instruction::Label(l) if l.parse::<u8>().is_err());
        let len = listing[start..].iter().position(global).unwrap_or(listing.len() - start);
        &listing[start..start + len]
    }

    fn position(listing: &[Instruction<'_>], wanted: Instruction<'_>) -> usize {
        listing.iter().position(|i| *i == wanted).unwrap_or_else(|| panic!("no {wanted:?} in {listing:?}"))
    }

    #[test]
    fn the_relocation_code_changes_the_upper_root_by_break_before_make() {
        let listing = read(RELOCATE).unwrap();
        let [Instruction::Label("linmap_relocate_start"), rest @ ..] = &listing[..] else {
            panic!("{listing:?}")
        };
        let switch = [
            msr(Register::SpSel, "#1"),
            msr(Register::CpacrEl1, "x8"),
            Instruction::Isb,
            Instruction::Hvc("#0"),
            Instruction::Label("0"),
            msr(Register::Ttbr1El1, "x5"),
            Instruction::Isb,
            VMALLE1,
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            msr(Register::Ttbr1El1, "x4"),
            Instruction::Isb,
        ];
        assert_eq!(rest[..switch.len()], switch);
        let roots = |i: &Instruction<'_>| {
            matches!(
                i,
                Instruction::Msr { register: Register::Ttbr0El1 | Register::Ttbr1El1 | Register::TcrEl1, .. }
            )
        };
        assert_eq!(listing.iter().filter(|i| roots(i)).count(), 2, "no other root changes");
    }

    #[test]
    fn the_relocation_code_turns_the_mmu_off_after_everything_is_cleaned_and_then_leaves() {
        let listing = read(RELOCATE).unwrap();
        // A CPU completes its stores and cleans before it reports that it is done, or enters the
        // payload.
        let say = [Instruction::Dsb(Dsb::Sy), Instruction::Bl("say")];
        assert_eq!(routine(&listing, "moved"), say);
        let moved = position(&listing, Instruction::Label("moved"));
        let cleaned = position(&listing, Instruction::Dc { operation: Dc::Civac, address: "x11" });
        assert!(cleaned < moved);
        assert!(moved < position(&listing, Instruction::Label("enter")));
        let enter = [
            Instruction::Bl("mmu_off"),
            Instruction::Label("1"),
            Instruction::Br("x4"),
            Instruction::Label("0"),
            Instruction::Bl("linmap_leave_vhe"),
            Instruction::Bl("print"),
            Instruction::Label("0"),
            Instruction::Hvc("#0"),
        ];
        assert_eq!(routine(&listing, "enter_at"), enter);
        let mmu_off = [
            Instruction::Dsb(Dsb::Sy),
            Instruction::IcIallu,
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            msr(Register::SctlrEl1, "x7"),
            Instruction::Isb,
            Instruction::Ret("x30"),
        ];
        assert_eq!(routine(&listing, "mmu_off"), mmu_off);
        let offs =
            listing.iter().filter(|i| matches!(i, Instruction::Msr { register: Register::SctlrEl1, .. }));
        assert_eq!(offs.count(), 1, "all CPUs take this path");
    }

    #[test]
    fn the_mmu_goes_on_after_tables_are_ordered_registers_written_and_tlbs_and_instructions_dropped() {
        let listing = read(ENTRY).unwrap();
        let ordered = [Instruction::Dsb(Dsb::Sy), Instruction::Bl("invalidate_to_poc")];
        for routine_name in ["primary_entry", "enter_again"] {
            let entry = routine(&listing, routine_name);
            let made = position(entry, Instruction::Bl("make_half"));
            assert!(position(entry, Instruction::Bl("make_identity_map")) < made);
            assert_eq!(entry[made + 1..], ordered);
        }
        // All CPUs come this way.
        let end = [
            msr(Register::TcrEl1, "x1"),
            msr(Register::MairEl1, "x0"),
            msr(Register::Ttbr0El1, "x0"),
            Instruction::Bl("find_root"),
            msr(Register::Ttbr1El1, "x0"),
            msr(Register::Tcr2El1, "xzr"),
            Instruction::Label("0"),
            msr(Register::Sctlr2El1, "xzr"),
            Instruction::Label("0"),
            Instruction::Isb,
            VMALLE1,
            Instruction::Dsb(Dsb::Nsh),
            Instruction::IcIallu,
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            msr(Register::SctlrEl1, "x0"),
            Instruction::Isb,
            Instruction::Br("x3"),
        ];
        assert_eq!(routine(&listing, "enable_mmu"), end);
    }

    #[test]
    fn lines_are_invalidated_one_by_one_and_waited_for() {
        let listing = read(ENTRY).unwrap();
        let invalidate = Instruction::Dc { operation: Dc::Ivac, address: "x0" };
        assert_eq!(
            routine(&listing, "invalidate_to_poc"),
            [Instruction::Label("0"), invalidate, Instruction::Dsb(Dsb::Sy), Instruction::Ret("x30")]
        );
        let tables = read(EARLY_TABLES).unwrap();
        for routine_name in ["make_identity_map", "make_half"] {
            assert!(
                routine(&tables, routine_name).iter().all(|i| matches!(
                    i,
                    Instruction::Label(_) | Instruction::Bl(_) | Instruction::Ret("x9")
                )),
                "tables are made by stores alone"
            );
        }
    }

    #[test]
    fn the_first_map_is_left_by_break_before_make_and_its_tcr_with_the_mmu_off() {
        let listing = read(ENTRY).unwrap();
        let switch = [
            msr(Register::Ttbr1El1, "x0"),
            Instruction::Isb,
            VMALLE1,
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            Instruction::Bl("find_root"),
            msr(Register::Ttbr1El1, "x0"),
            Instruction::Isb,
            Instruction::Br("x3"),
        ];
        assert_eq!(routine(&listing, "switch_maps"), switch);
        // TCR changes in enable_mmu.
        let off = [msr(Register::SctlrEl1, "x5"), Instruction::Isb];
        assert_eq!(routine(&listing, "enter_again")[..2], off);
    }

    #[test]
    fn the_mmu_is_off_when_the_exception_level_is_settled_whichever_it_is() {
        let listing = read(ENTRY).unwrap();
        let settle = routine(&listing, "enter_el");
        let off = msr(Register::SctlrEl1, "x0");
        let offs: Vec<usize> = (0..settle.len()).filter(|i| settle[*i] == off).collect();
        let leaves: Vec<usize> = (0..settle.len())
            .filter(|i| matches!(settle[*i], Instruction::Ret(_) | Instruction::Eret))
            .collect();
        assert_eq!(offs.len(), 3, "EL1, EL2 with VHE, EL2 without");
        for (off, leave) in offs.into_iter().zip(leaves) {
            assert!(settle[off..leave].contains(&Instruction::Isb), "{:?}", &settle[off..leave]);
        }
        // Without VHE, nothing of stage 2 is on and EL2's own MMU is off before EL1 is entered.
        let stage_2 = position(settle, msr(Register::VttbrEl2, "xzr"));
        let el2_off = position(settle, msr(Register::SctlrEl2, "x1"));
        assert!(stage_2 < el2_off && el2_off < position(settle, Instruction::Eret));
    }

    #[test]
    fn vhe_is_left_with_nothing_cached_and_every_register_in_the_layout_without_it() {
        let listing = read(EL2_EXIT).unwrap();
        let alle = |operation| Instruction::Tlbi { operation, operand: None };
        let leave = [
            // Nothing of the EL2&0 regime stays cached.
            VMALLE1,
            alle(Tlbi::Alle2),
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            msr(Register::HcrEl2, "x5"),
            Instruction::Isb,
            // Where E2H stays, everything stays.
            msr(Register::HcrEl2, "x4"),
            Instruction::Isb,
            Instruction::Label("1"),
            msr(Register::SctlrEl2, "x3"),
            Instruction::Isb,
            msr(Register::CptrEl2, "x3"),
            msr(Register::CnthctlEl2, "x3"),
            msr(Register::CntvoffEl2, "xzr"),
            Instruction::Label("2"),
            msr(Register::MdcrEl2, "x3"),
            msr(Register::HstrEl2, "xzr"),
            msr(Register::VttbrEl2, "xzr"),
            msr(Register::VpidrEl2, "x3"),
            msr(Register::VmpidrEl2, "x3"),
            msr(Register::IccSreEl2, "x3"),
            Instruction::Isb,
            msr(Register::IchHcrEl2, "xzr"),
            Instruction::Label("3"),
            Instruction::Isb,
            alle(Tlbi::Alle2),
            alle(Tlbi::Alle1),
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            Instruction::Label("8"),
            Instruction::Ret("x30"),
            Instruction::Label("9"),
            Instruction::Ret("x30"),
        ];
        assert_eq!(routine(&listing, "linmap_leave_vhe"), leave);
        // A CPU that goes to the pen from where it waits leaves VHE first, then drops the
        // instructions that it fetched.
        let secondary = read(SECONDARY).unwrap();
        assert_eq!(
            routine(&secondary, "to_pen")[..2],
            [Instruction::Bl("linmap_leave_vhe"), Instruction::IcIallu]
        );
    }

    #[test]
    fn the_stub_drops_cached_instructions_before_it_enters_the_payload() {
        let listing = read(EL2_STUB).unwrap();
        let at = position(&listing, Instruction::IcIallu);
        let end = [Instruction::Dsb(Dsb::Nsh), Instruction::Isb, Instruction::Br("x4")];
        assert_eq!(listing[at + 1..at + 4], end);
    }

    #[test]
    fn a_cpu_in_the_pen_says_so_first_and_leaves_it_with_nothing_cached_that_it_fetched_before() {
        let listing = read(PEN).unwrap();
        let pen = [
            Instruction::Label("pen_start"),
            msr(Register::DaifSet, "#0xf"),
            Instruction::Dsb(Dsb::Sy),
            Instruction::Label("0"),
            Instruction::Label("1"),
            Instruction::IcIallu,
            Instruction::Dsb(Dsb::Nsh),
            Instruction::Isb,
            Instruction::Br("x4"),
            Instruction::Label("pen_end"),
        ];
        assert_eq!(listing, pen);
        // From the relocation code it is entered like the payload, with the MMU off.
        let moved = read(RELOCATE).unwrap();
        assert_eq!(routine(&moved, "switch_off"), [Instruction::Bl("firmware"), Instruction::Label("0")]);
    }

    #[test]
    fn a_cpu_that_waits_to_be_called_again_has_its_mmu_off_before_it_looks() {
        let listing = read(SECONDARY).unwrap();
        let off = [Instruction::Dsb(Dsb::Sy), msr(Register::SctlrEl1, "x0"), Instruction::Isb];
        assert_eq!(routine(&listing, "secondary_again"), off);
        let writes = |i: &Instruction<'_>| matches!(i, Instruction::Msr { register: Register::SctlrEl1, .. });
        assert_eq!(listing.iter().filter(|i| writes(i)).count(), 1, "it is on nowhere before");
    }

    #[test]
    fn the_vectors_change_nothing_that_translates() {
        let listing = read(VECTORS).unwrap();
        let written: Vec<_> = listing.iter().filter(|i| matches!(i, Instruction::Msr { .. })).collect();
        assert_eq!(written, [&msr(Register::ElrEl1, "x2"), &msr(Register::SpsrEl1, "x2")]);
    }

    #[test]
    fn labels_statements_and_comments_are_told_apart() {
        let source = "a: 0: ISB; tlbi VAAE1IS, x3 // tlbi vmalle1\n  .ascii \"ARM\"\n mrs x0, \
                      tcr_el1\n add x0, x0, :lo12:b";
        assert_eq!(
            read(source).unwrap(),
            [
                Instruction::Label("a"),
                Instruction::Label("0"),
                Instruction::Isb,
                Instruction::Tlbi { operation: Tlbi::Vaae1is, operand: Some("x3") },
            ]
        );
    }

    #[test]
    fn what_the_reader_does_not_know_is_an_error_that_names_its_line() {
        for (source, text) in [
            ("nop\nmsr ttbr0_el2, x0", "msr ttbr0_el2, x0"),
            ("nop\ntlbi alle3", "tlbi alle3"),
            ("nop\ntlbi vaae1is", "tlbi vaae1is"),
            ("nop\ntlbi vmalle1, x0", "tlbi vmalle1, x0"),
            ("nop\n0: dsb oshst", "dsb oshst"),
            ("nop\ndc zva, x0", "dc zva, x0"),
            ("nop\nsys #0, c8, c2, #3, x0", "sys #0, c8, c2, #3, x0"),
            ("nop\nsvc #0", "svc #0"),
            ("nop\n.ifdef A", ".ifdef A"),
            ("nop\n.endm", ".endm"),
            ("nop\nisb /* late */", "isb /* late */"),
        ] {
            assert_eq!(
                read(source),
                Err(ListingError::Unknown { line: 2, text: text.to_owned() }),
                "{source}"
            );
        }
    }

    #[test]
    fn a_system_instruction_in_a_macro_repetition_or_condition_is_an_error() {
        for (start, end) in [(".macro m", ".endm"), (".rept 2", ".endr"), (".if 1", ".endif")] {
            let source = format!("{start}\n0: nop\n{end}\nisb");
            assert_eq!(read(&source).unwrap(), [Instruction::Isb]);
            let source = format!("{start}\n isb\n{end}");
            assert_eq!(read(&source), Err(ListingError::InBody { line: 2, text: "isb".to_owned() }));
        }
    }
}

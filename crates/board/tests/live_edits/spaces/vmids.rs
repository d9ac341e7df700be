//! Guests with VMIDs of the same allocator: each with its tables of stage 2.

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_board::Board;
use linmap_model::event::{Access, Domain, Register, TlbiScope};
use linmap_model::{Config, Event, Violation};
use linmap_table::{DetachedTree, Leaves, Mapping, Mappings, ReachableFrames};
use linmap_vmsa::{Attributes, Geometry, Granule, Pa, Stage2, Stage2Registers, Va, VmidSize};

use super::pages::{FRAME, TABLE_COUNT, TABLES, Tables};

const CPUS: usize = 2;
const GUESTS: usize = 12;

/// All CPUs run all guests in turn. Returns the first violation, and how many rollovers there were.
fn rounds(invalidation: Option<TlbiScope>) -> (Result<(), Violation>, u64) {
    let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
    let geometry = Geometry::stage_2(Granule::K4, 39, 40, Stage2::Base).unwrap();
    let config = Config {
        cpus: CPUS,
        bbm: 0,
        granule: 0x1000,
        va_bits: geometry.va_bits(),
        pa_bits: geometry.pa_bits(),
        ram: vec![(TABLES, TABLE_COUNT * FRAME)],
    };
    let board = Board::new(&config, false).unwrap();
    let mut tables = Tables::new();
    let guests = (0..GUESTS as u64).map(|nth| {
        let (va, pa, attributes) = (Va(0x40_0000), Pa(0x10_0000 + nth * 0x1000), Attributes::GUEST_RAM);
        let list = [Mapping { va, pa, len: 0x1000, attributes, leaves: Leaves::Pages }];
        let mut window = board.window(0, None);
        // SAFETY: a window of the board reaches all of its memory.
        let mut memory = unsafe { ReachableFrames::new(&mut window, &mut tables) };
        let tree = DetachedTree::build(&Mappings::new(geometry, &list).unwrap(), &mut memory);
        (tree.unwrap().root(), SpaceId::new())
    });
    let guests: Vec<(Pa, SpaceId)> = guests.collect();
    let dsb = |cpu, domain| board.event(Event::Dsb { cpu, domain, access: Access::All });
    dsb(0, Domain::Ish);
    let registers = |root, vmid| Stage2Registers::new(geometry, root, vmid, VmidSize::Bits8).unwrap();
    for cpu in 0..CPUS {
        let value = registers(guests[0].0, 0).vtcr;
        board.event(Event::Write { cpu, register: Register::Vtcr, value });
        board.event(Event::Isb { cpu });
    }
    let mut parts: Vec<_> = (0..CPUS).map(|cpu| CpuIds::new(&ids, cpu).unwrap()).collect();
    let run = (0..200).try_for_each(|i| {
        let (cpu, (root, id)) = (i * 7 % 5 % CPUS, &guests[i * 11 % GUESTS]);
        let vmid = parts[cpu].switch_to(id, |maintenance| {
            if let (Maintenance::Invalidation, Some(scope)) = (maintenance, invalidation) {
                let tlbi = linmap_model::event::Tlbi { scope, broadcast: false };
                board.event(Event::Tlbi { cpu, tlbi, operand: 0 });
            }
            dsb(cpu, Domain::Ish);
            board.event(Event::Isb { cpu });
        });
        let value = registers(*root, vmid).vttbr;
        board.event(Event::Write { cpu, register: Register::Vttbr, value });
        board.event(Event::Isb { cpu });
        board.verdict()
    });
    (run, ids.generation() - 1)
}

#[test]
fn guests_by_turns_are_legal_over_rollovers_of_vmids() {
    let (run, rollovers) = rounds(Some(TlbiScope::AllStages));
    assert!(run.is_ok() && rollovers > 10, "{run:?}, {rollovers}");
}

#[test]
fn a_rollover_of_vmids_takes_an_invalidation_of_every_vmid() {
    assert!(rounds(None).0.is_err());
    // VMALLS12E1: that of the guest that the CPU leaves.
    assert!(rounds(Some(TlbiScope::AllStagesVmid)).0.is_err());
}

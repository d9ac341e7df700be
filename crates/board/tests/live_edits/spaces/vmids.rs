//! Guests with VMIDs of the same allocator: each with its tables of stage 2, which change while
//! CPUs walk them.

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_board::{Board, BoardRegime};
use linmap_live::{AddressSpace, Change, Step, Tools};
use linmap_model::event::{Access, Domain, Register, TlbiScope};
use linmap_model::{Config, Event, Violation};
use linmap_table::{DetachedTree, Leaves, Mapping, Mappings, ReachableFrames};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Attributes, Geometry, Granule, Pa, Stage2, Stage2Registers, Va, VaRange, VmidSize};

use super::pages::{FRAME, TABLE_COUNT, TABLES, Tables};

const CPUS: usize = 2;
const GUESTS: usize = 12;
/// The page of each guest.
const PAGE: VaRange = VaRange::new(Va(0x40_0000), 0x1000);
/// Where the memory of the guests begins.
const MEMORY: u64 = 0x10_0000;

/// All CPUs run all guests in turn, and each time the guest's page moves to a frame that no guest
/// had. A CPU whose TLB has the guest's VMID from an earlier generation would reach another guest's
/// frame. Returns the first violation, and how many rollovers there were.
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
        leniency: linmap_model::Leniency::Strict,
    };
    let board = Board::new(&config, false).unwrap();
    let mut tables = Tables::new();
    let guests = (0..GUESTS as u64).map(|nth| {
        let (va, pa, attributes) = (PAGE.start, Pa(MEMORY + nth * PAGE.len), Attributes::GUEST_RAM);
        let list = [Mapping { va, pa, len: PAGE.len, attributes, leaves: Leaves::Pages }];
        let mut window = board.window(0, None);
        // SAFETY: a window of the board reaches all of its memory.
        let mut memory = unsafe { ReachableFrames::new(&mut window, &mut tables) };
        let tree = DetachedTree::build(&Mappings::new(geometry, &list).unwrap(), &mut memory);
        // SAFETY: on the model. Each CPU has the guest's VMID while it changes the space.
        (unsafe { AddressSpace::guest(geometry, tree.unwrap().root(), BbmLevel::L0) }, SpaceId::new())
    });
    let mut guests: Vec<(AddressSpace, SpaceId)> = guests.collect();
    let dsb = |cpu, domain| board.event(Event::Dsb { cpu, domain, access: Access::All });
    dsb(0, Domain::Ish);
    let registers = |root, vmid| Stage2Registers::new(geometry, root, vmid, VmidSize::Bits8).unwrap();
    for cpu in 0..CPUS {
        let value = registers(guests[0].0.root(), 0).vtcr;
        board.event(Event::Write { cpu, register: Register::Vtcr, value });
        board.event(Event::Isb { cpu });
    }
    let mut parts: Vec<_> = (0..CPUS).map(|cpu| CpuIds::new(&ids, cpu).unwrap()).collect();
    let run = (0..200).try_for_each(|i| {
        let (cpu, (space, id)) = (i * 7 % 5 % CPUS, &mut guests[i * 11 % GUESTS]);
        let vmid = parts[cpu].switch_to(id, |maintenance| {
            if let (Maintenance::Invalidation, Some(scope)) = (maintenance, invalidation) {
                let tlbi = linmap_model::event::Tlbi { scope, broadcast: false };
                board.event(Event::Tlbi { cpu, tlbi, operand: 0 });
            }
            dsb(cpu, Domain::Ish);
            board.event(Event::Isb { cpu });
        });
        let value = registers(space.root(), vmid).vttbr;
        board.event(Event::Write { cpu, register: Register::Vttbr, value });
        board.event(Event::Isb { cpu });
        let to = Pa(MEMORY + (GUESTS + i) as u64 * PAGE.len);
        let (mut window, mut own) = (board.window(cpu, None), board.cpu_of(cpu, BoardRegime::Stage2));
        let (frames, cpu, steps) = (&mut tables, &mut own, &mut [Step::Isb; 16]);
        let mut tools = Tools { window: &mut window, frames, cpu, steps };
        // SAFETY: on the model, whose guests access nothing that they must not.
        unsafe { space.remap(PAGE, to, Change::default(), &mut tools) }.unwrap();
        assert_eq!(space.translate(PAGE.start, &mut window).map(|found| found.pa), Some(to));
        drop(window);
        board.event(Event::Settled);
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

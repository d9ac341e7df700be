//! Address spaces: what each call costs in invalidations, and what it leaves.

use linmap_live::{AddressSpace, Change, Maintenance, PlanError, SpaceError, Step, Tools};
use linmap_table::cpu::Tlbi;
use linmap_table::{FrameSource, Leaf, Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::tlbi::VaOperand;
use linmap_vmsa::{
    Access, AttributeError, Attributes, Geometry, Granule, HardwareUpdates, Level, Mair, MemoryType, Pa,
    Stage2, Va, VaRange,
};

use crate::live::{Arena, HostCpu};

const G: Geometry = Geometry::K4_48;
const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const ASID: u16 = 9;
const DATA: Va = Va(0x40_0000);
const MEMORY: Pa = Pa(0x8000_0000);
const WRITABLE: Change = Change { access: Some(Access::UserReadWrite), execute: None, valid: None };

struct Machine {
    arena: Arena,
    window: OffsetWindow,
    cpu: HostCpu,
    steps: Vec<Step>,
}

impl Machine {
    fn new(geometry: Geometry) -> Self {
        let mut arena = Arena::new(geometry, 64);
        let window = arena.window();
        Self { arena, window, cpu: HostCpu::default(), steps: vec![Step::Isb; 256] }
    }

    fn tools(&mut self) -> Tools<'_, OffsetWindow, Arena, HostCpu> {
        let Self { arena, window, cpu, steps } = self;
        Tools { window, frames: arena, cpu, steps }
    }

    /// The invalidations since the last call.
    fn tlbis(&mut self) -> Vec<Tlbi> {
        std::mem::take(&mut self.cpu.tlbi)
    }
}

fn user(bbm: BbmLevel) -> (Machine, AddressSpace) {
    let mut machine = Machine::new(G);
    let root = machine.arena.empty_root(G);
    // SAFETY: nothing walks the tree, and all tools are of this machine.
    let space = unsafe { AddressSpace::user(G, root, ASID, bbm) };
    (machine, space)
}

fn map(
    space: &mut AddressSpace,
    machine: &mut Machine,
    va: Va,
    pa: Pa,
    len: u64,
    attributes: Attributes,
) -> Result<(), SpaceError> {
    let list = [Mapping { va, pa, len, attributes, leaves: Leaves::ContiguousBlocks }];
    let mappings = Mappings::new(space.geometry(), &list).unwrap();
    // SAFETY: nobody accesses the memory.
    unsafe { space.map(&mappings, &mut machine.tools()) }.map(drop)
}

fn in_asid(va: Va) -> VaOperand {
    VaOperand::in_asid(va, ASID)
}

#[test]
fn an_unmapped_page_of_a_user_space_costs_one_invalidation_by_address_and_asid() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    map(&mut space, &mut machine, DATA, MEMORY, 3 * PAGE, Attributes::USER_DATA).unwrap();
    assert_eq!(machine.tlbis(), [], "nothing is cached of invalid entries");
    space.unmap(VaRange::new(DATA, PAGE), &mut machine.tools()).unwrap();
    assert_eq!(machine.tlbis(), [Tlbi::LastLevelByVaInAsid(in_asid(DATA))]);
    assert_eq!(space.translate(DATA, &mut machine.window), None);
    let next = space.translate(Va(DATA.0 + PAGE + 5), &mut machine.window).unwrap();
    assert_eq!((next.pa, next.attributes), (Pa(MEMORY.0 + PAGE + 5), Attributes::USER_DATA));
}

#[test]
fn a_space_is_torn_down_by_one_invalidation_of_its_asid_before_its_frames_are_used_again() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    for at in [0u64, BLOCK, 1 << 30, 1 << 40] {
        map(&mut space, &mut machine, Va(DATA.0 + at), Pa(MEMORY.0 + at), PAGE, Attributes::USER_DATA)
            .unwrap();
    }
    machine.tlbis();
    let mut gone = Vec::new();
    space.clear(&mut machine.tools(), |leaf: Leaf| gone.push(leaf.pa.0 - MEMORY.0)).unwrap();
    assert_eq!(machine.tlbis(), [Tlbi::Asid(ASID)]);
    gone.sort_unstable();
    assert_eq!(gone, [0, BLOCK, 1 << 30, 1 << 40]);
    assert_eq!(machine.arena.used(), 1, "the root alone is left");
    assert_eq!(space.leaves(&mut machine.window).count(), 0);
    let again = space.clear(&mut machine.tools(), |_| panic!("nothing is mapped")).unwrap();
    assert_eq!((machine.tlbis(), again.invalidations), (vec![Tlbi::Asid(ASID)], 1), "for the root");
}

#[test]
fn a_page_is_copied_on_write_by_break_before_make_in_one_plan() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    map(&mut space, &mut machine, DATA, MEMORY, 4 * PAGE, Attributes::USER_RODATA).unwrap();
    machine.tlbis();
    let (page, copy) = (VaRange::new(Va(DATA.0 + PAGE), PAGE), Pa(0x9000_0000));
    // SAFETY: nobody accesses the memory.
    let counts = unsafe { space.remap(page, copy, WRITABLE, &mut machine.tools()) }.unwrap();
    assert_eq!(machine.tlbis(), [Tlbi::LastLevelByVaInAsid(in_asid(page.start))]);
    assert_eq!((counts.entries, counts.invalidations), (2, 1), "broken, then made");
    let now = space.translate(page.start, &mut machine.window).unwrap();
    assert_eq!((now.pa, now.attributes), (copy, Attributes::USER_DATA));
    let other = space.translate(DATA, &mut machine.window).unwrap();
    assert_eq!((other.pa, other.attributes), (MEMORY, Attributes::USER_RODATA));
}

#[test]
fn a_page_of_a_block_gets_memory_of_its_own() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    map(&mut space, &mut machine, DATA, MEMORY, BLOCK, Attributes::USER_RODATA).unwrap();
    let (page, copy) = (VaRange::new(Va(DATA.0 + 7 * PAGE), PAGE), Pa(0x9000_3000));
    // SAFETY: nobody accesses the memory.
    unsafe { space.remap(page, copy, WRITABLE, &mut machine.tools()) }.unwrap();
    assert_eq!(space.translate(page.start, &mut machine.window).unwrap().pa, copy);
    let next = space.translate(Va(page.start.0 + PAGE), &mut machine.window).unwrap();
    assert_eq!((next.pa, next.level), (Pa(MEMORY.0 + 8 * PAGE), Level::L3));
}

#[test]
fn a_global_mapping_of_a_user_space_is_refused() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    let error = map(&mut space, &mut machine, DATA, MEMORY, PAGE, Attributes::KERNEL_DATA);
    assert_eq!(error, Err(SpaceError::Plan(PlanError::GlobalLeaf { va: DATA })));
    assert_eq!(machine.arena.used(), 1);
}

#[test]
fn a_new_memory_type_is_in_force_before_caches_are_cleaned() {
    let (mut machine, mut space) = user(BbmLevel::L3);
    map(&mut space, &mut machine, DATA, MEMORY, 4 * PAGE, Attributes::USER_DATA).unwrap();
    machine.tlbis();
    let range = VaRange::new(DATA, 2 * PAGE);
    let memory = MemoryType::NormalNonCacheable;
    // SAFETY: nobody accesses the memory, and the tools' CPU does nothing for maintenance.
    unsafe { space.set_memory_type(range, memory, Maintenance::ByMapping, &mut machine.tools()) }.unwrap();
    assert_eq!(machine.cpu.cleaned, [(DATA.0, 2 * PAGE)]);
    assert_eq!(machine.tlbis().len(), 2, "break-before-make at every BBM level");
    let now = space.translate(DATA, &mut machine.window).unwrap();
    assert_eq!((now.pa, now.attributes), (MEMORY, Attributes { memory, ..Attributes::USER_DATA }));
    let kept = space.translate(Va(range.start.0 + range.len), &mut machine.window).unwrap();
    assert_eq!(kept.attributes, Attributes::USER_DATA);
}

#[test]
fn a_memory_type_that_is_in_no_slot_of_mair_is_refused() {
    // Device-nGnRE in slot 0, write-back memory in slot 1.
    let geometry = G.with_mair(Mair::new(0x0404_0404_0404_ff04));
    let mut machine = Machine::new(geometry);
    let root = machine.arena.empty_root(geometry);
    // SAFETY: as for `user`.
    let mut space = unsafe { AddressSpace::user(geometry, root, ASID, BbmLevel::L0) };
    map(&mut space, &mut machine, DATA, MEMORY, PAGE, Attributes::USER_DATA).unwrap();
    let memory = MemoryType::NormalNonCacheable;
    let range = VaRange::new(DATA, PAGE);
    // SAFETY: nobody accesses the memory.
    let result =
        unsafe { space.set_memory_type(range, memory, Maintenance::ByMapping, &mut machine.tools()) };
    let error = AttributeError::NoSlot { memory };
    assert_eq!(result, Err(SpaceError::Plan(PlanError::Attributes(error))));
    let kept = space.translate(DATA, &mut machine.window).unwrap();
    assert_eq!(kept.attributes, Attributes::USER_DATA);
}

/// A fault handler asks about any address: one of the kernel has the same index bits.
#[test]
fn an_address_outside_of_the_space_translates_to_nothing() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    map(&mut space, &mut machine, DATA, MEMORY, PAGE, Attributes::USER_DATA).unwrap();
    for va in [Va(DATA.0 | 0xffff << 48), Va(DATA.0 | 1 << 48), Va(DATA.0 | 1 << 56)] {
        assert_eq!(space.translate(va, &mut machine.window), None, "{va}");
    }
    let geometry = Geometry::stage_2(Granule::K4, 40, 40, Stage2::Base).unwrap();
    let mut machine = Machine::new(geometry);
    let root = Pa(crate::live::RAM);
    for nth in 0..geometry.root_tables() as u64 {
        machine.arena.free.remove(&(root.0 + nth * PAGE));
        (0..512).for_each(|index| machine.arena.poke(Pa(root.0 + nth * PAGE), index, |_| 0));
    }
    // SAFETY: as for `user`.
    let mut guest = unsafe { AddressSpace::guest(geometry, root, BbmLevel::L0) };
    map(&mut guest, &mut machine, DATA, MEMORY, PAGE, Attributes::GUEST_RAM).unwrap();
    assert!(guest.translate(DATA, &mut machine.window).is_some());
    assert_eq!(guest.translate(Va(DATA.0 | 1 << 40), &mut machine.window), None);
}

#[test]
fn memory_beyond_the_pa_size_or_between_pages_is_refused() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    map(&mut space, &mut machine, DATA, MEMORY, PAGE, Attributes::USER_DATA).unwrap();
    for to in [Pa(0x1234), Pa(1 << 48), Pa(u64::MAX - 0xfff)] {
        // SAFETY: nobody accesses the memory.
        let error =
            unsafe { space.remap(VaRange::new(DATA, PAGE), to, Change::default(), &mut machine.tools()) };
        assert!(matches!(error, Err(SpaceError::Plan(PlanError::NoSuchMemory { .. }))), "{to}: {error:?}");
    }
}

/// Write-protect, split, one dirty page, fold back: what a dirty log needs, with the guest running
/// on CPUs of BBM level 0.
#[test]
fn a_guests_memory_is_write_protected_split_and_folded_back_at_level_0() {
    let geometry = Geometry::stage_2(Granule::K4, 34, 40, Stage2::Base).unwrap();
    let mut machine = Machine::new(geometry);
    // 16 concatenated tables of 1 GiB each.
    let root = Pa(crate::live::RAM);
    for nth in 0..geometry.root_tables() as u64 {
        machine.arena.free.remove(&(root.0 + nth * PAGE));
        for index in 0..512 {
            machine.arena.poke(Pa(root.0 + nth * PAGE), index, |_| 0);
        }
    }
    // SAFETY: as for `user`.
    let mut space = unsafe { AddressSpace::guest(geometry, root, BbmLevel::L0) };
    // Over the end of the first root table.
    let ram = VaRange::new(Va((1 << 30) - 4 * BLOCK), 8 * BLOCK);
    map(&mut space, &mut machine, ram.start, MEMORY, ram.len, Attributes::GUEST_RAM).unwrap();
    let blocks: Vec<Leaf> = space.leaves(&mut machine.window).collect();
    let used = machine.arena.used();
    machine.tlbis();

    let read_only = Change { access: Some(Access::GuestReadOnly), execute: None, valid: None };
    let writable = Change { access: Some(Access::GuestReadWrite), ..read_only };
    // SAFETY: nobody accesses the memory.
    unsafe { space.protect(ram, read_only, &mut machine.tools()) }.unwrap();
    let tlbis = machine.tlbis();
    let by_ipa = |tlbi: &&Tlbi| matches!(tlbi, Tlbi::LastLevelByVa(_));
    assert_eq!(tlbis.iter().filter(by_ipa).count(), 8, "{tlbis:?}");
    assert_eq!(tlbis.last(), Some(&Tlbi::Stage1), "what combines both stages goes last");
    space.split(ram, Level::L3, &mut machine.tools()).unwrap();
    assert_eq!(machine.arena.used(), used + 8);
    machine.tlbis();

    let page = VaRange::new(Va(ram.start.0 + 3 * BLOCK + 5 * PAGE), PAGE);
    // SAFETY: as above.
    unsafe { space.protect(page, writable, &mut machine.tools()) }.unwrap();
    assert_eq!(machine.tlbis(), [Tlbi::LastLevelByVa(VaOperand::any_asid(page.start)), Tlbi::Stage1]);
    let dirty: Vec<Va> = space
        .leaves(&mut machine.window)
        .filter(|leaf| leaf.attributes(geometry).unwrap().access == Access::GuestReadWrite)
        .map(|leaf| leaf.va)
        .collect();
    assert_eq!(dirty, [page.start]);

    // SAFETY: as above.
    unsafe { space.protect(ram, writable, &mut machine.tools()) }.unwrap();
    space.fold(ram, &mut machine.tools()).unwrap();
    assert_eq!(space.leaves(&mut machine.window).collect::<Vec<_>>(), blocks);
    assert_eq!(machine.arena.used(), used);
}

#[test]
fn a_list_of_steps_too_short_for_a_split_is_used_piece_by_piece() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    let range = VaRange::new(DATA, 64 * BLOCK);
    map(&mut space, &mut machine, DATA, Pa(1 << 32), range.len, Attributes::USER_DATA).unwrap();
    machine.steps.truncate(24);
    let part = VaRange::new(Va(DATA.0 + BLOCK), 20 * BLOCK);
    space.split(part, Level::L3, &mut machine.tools()).unwrap();
    let pages = space.leaves(&mut machine.window).filter(|leaf| leaf.level == Level::L3).count();
    assert_eq!(pages as u64, part.len / PAGE);
}

#[test]
fn a_frame_source_that_runs_dry_leaves_the_space_as_it_was() {
    let (mut machine, mut space) = user(BbmLevel::L0);
    map(&mut space, &mut machine, DATA, MEMORY, BLOCK, Attributes::USER_DATA).unwrap();
    let before: Vec<Leaf> = space.leaves(&mut machine.window).collect();
    let used = machine.arena.used();
    machine.arena.allowed = 0;
    let page = VaRange::new(DATA, PAGE);
    assert!(space.unmap(page, &mut machine.tools()).is_err());
    // SAFETY: nobody accesses the memory.
    unsafe {
        assert!(
            space
                .protect(
                    page,
                    Change { access: Some(Access::UserReadOnly), ..WRITABLE },
                    &mut machine.tools()
                )
                .is_err()
        );
        assert!(space.remap(page, Pa(0x9000_0000), WRITABLE, &mut machine.tools()).is_err());
    }
    assert!(space.split(page, Level::L3, &mut machine.tools()).is_err());
    assert_eq!(space.leaves(&mut machine.window).collect::<Vec<_>>(), before);
    assert_eq!(machine.arena.used(), used);
    machine.arena.allowed = usize::MAX;
    assert!(machine.arena.alloc().is_ok());
}

#[test]
fn what_was_written_is_reported_when_pages_are_replaced_or_a_space_ends() {
    let (mut machine, space) = user(BbmLevel::L0);
    // SAFETY: no CPU walks the tables.
    let mut space = unsafe { space.with_hardware_updates(HardwareUpdates::AccessedAndDirty) };
    let tracked = |access| Attributes { access, ..Attributes::USER_DATA };
    let [clean, dirty] = [Access::UserReadWriteClean, Access::UserReadWriteDirty].map(tracked);
    let page = |nth: u64| VaRange::new(Va(DATA.0 + nth * PAGE), PAGE);
    // Every second of eight pages was written, and a block in the middle of nowhere.
    for nth in 0..8 {
        let attributes = if nth % 2 == 0 { clean } else { dirty };
        map(&mut space, &mut machine, page(nth).start, Pa(MEMORY.0 + nth * PAGE), PAGE, attributes).unwrap();
    }
    let block = VaRange::new(Va(1 << 30), BLOCK);
    map(&mut space, &mut machine, block.start, Pa(1 << 30), BLOCK, dirty).unwrap();

    let read_only = Change { access: Some(Access::UserReadOnly), ..Change::default() };
    let copy = Pa(0x9000_0000);
    let mut written = Vec::new();
    // SAFETY: nobody accesses the memory.
    unsafe {
        let range = VaRange::new(DATA, 2 * PAGE);
        let tools = &mut machine.tools();
        space.remap_reporting(range, copy, read_only, tools, |range| written.push(range)).unwrap();
    }
    assert_eq!(written, [page(1)]);
    let found = space.translate(page(1).start, &mut machine.window).unwrap();
    assert_eq!((found.pa, found.attributes.access), (Pa(copy.0 + PAGE), Access::UserReadOnly));
    // What stays tracked keeps its dirty state.
    // SAFETY: likewise.
    unsafe {
        let tools = &mut machine.tools();
        let quiet = |range| panic!("{range:?} is dirty still");
        space.remap_reporting(page(3), copy, Change::default(), tools, quiet).unwrap();
    }
    let found = space.translate(page(3).start, &mut machine.window).unwrap();
    assert_eq!(found.attributes.access, Access::UserReadWriteDirty);

    // A part of a space reports as the space does.
    written.clear();
    {
        let (mut part, _) = space.divide(Va(1 << 39)).unwrap();
        let tools = &mut machine.tools();
        // SAFETY: likewise.
        unsafe {
            let range = VaRange::new(page(2).start, 2 * PAGE);
            let made_clean = Change { access: Some(Access::UserReadWriteClean), ..Change::default() };
            part.protect_reporting(range, made_clean, tools, |range| written.push(range)).unwrap();
            part.remap_reporting(page(5), copy, read_only, tools, |range| written.push(range)).unwrap();
        }
        let range = VaRange::new(page(6).start, 2 * PAGE);
        part.unmap_reporting(range, tools, |range| written.push(range)).unwrap();
    }
    assert_eq!(written, [page(3), page(5), page(7)]);

    written.clear();
    let mut leaves = 0;
    machine.tlbis();
    let tools = &mut machine.tools();
    space.clear_reporting(tools, |_| leaves += 1, |range| written.push(range)).unwrap();
    assert_eq!((written, leaves), (vec![block], 7));
    assert_eq!(machine.tlbis(), [Tlbi::Asid(ASID)]);
    assert_eq!(machine.arena.used(), 1, "the root alone is left");
}

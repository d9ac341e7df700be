//! What all tables must say, from sources other than tables: memblock, the layout, the image, and
//! what the owners of mappings noted when they made them.

use arrayvec::ArrayVec;
use linmap::{Allowed, ChangedRanges, LinearMap};
use linmap_live::Global;
use linmap_memblock::Memblock;
use linmap_platform::gic::V2;
use linmap_table::Leaves;
use linmap_table::verify::{Content, Expected, Validity};
use linmap_vmsa::{Attributes, Level, Pa, PaRange, TablePermissions, Va};

use crate::arch::image::{Image, guards};
use crate::arch::layout::{DTB_LEVEL, DTB_WINDOW, FIXMAP, GRANULE, TABLE, WIDEST, slot};
use crate::memory::long_lists::REGIONS;
use crate::memory::parking;
use crate::memory::physical::CHANGED;

const PAGE: u64 = GRANULE.bytes();

/// What is known of the kernel's mappings.
#[derive(Clone, Copy, Debug)]
pub struct KnownMappings<'k> {
    /// The image.
    pub image: Image,
    /// All memory.
    pub memblock: &'k Memblock<REGIONS>,
    /// Protections that were changed.
    pub changed: &'k ChangedRanges<CHANGED>,
    /// The linear map's layout, leaves and nG bit.
    pub map: &'k LinearMap,
    /// The device tree.
    pub dtb: PaRange,
    /// The page with the console's registers.
    pub console: Option<Pa>,
    /// The interrupt controller's registers.
    pub gic: Option<V2>,
}

impl KnownMappings<'_> {
    /// What TTBR1's tree must translate. `stacks` is what the window of stacks must.
    pub fn live<'s>(
        &'s self,
        stacks: impl Iterator<Item = Expected> + 's,
    ) -> impl Iterator<Item = Expected> + 's {
        let global = self.map.global();
        let linear = self.map.expected(self.memblock.mappable(PAGE), self.changed);
        let image = image_mapping(self.image, Some(self.changed), global);
        let size = if DTB_LEVEL == Level::L3 { Leaves::Pages } else { Leaves::Blocks };
        let dtb = self
            .dtb
            .align_outward(WIDEST.entry_bytes(DTB_LEVEL))
            .map(|whole| leaves(DTB_WINDOW, whole, Attributes::KERNEL_RODATA, size, global));
        let V2 { distributor, cpu_interface } =
            self.gic.unwrap_or(V2 { distributor: Pa(0), cpu_interface: Pa(0) });
        let gic = [(slot::DISTRIBUTOR, distributor), (slot::CPU_INTERFACE, cpu_interface)];
        let gic = gic.into_iter().filter(|_| self.gic.is_some());
        linear.chain(image).chain(stacks).chain(dtb).chain(fixmap(self.console().chain(gic), global))
    }

    /// What the early identity map must translate, which CPUs park in.
    pub fn identity(&self) -> impl Iterator<Item = Expected> + use<> {
        let [vectors, words] = parking::identity_pages(self.image);
        let mut pages = [(self.image.identity_text(), Attributes::KERNEL_TEXT), vectors, words];
        pages.sort_unstable_by_key(|(pa, _)| *pa);
        // A large page may hold both `.idmap.text` and the vectors.
        let is_first = move |at: &usize| *at == 0 || pages[at - 1].0 != pages[*at].0;
        (0..pages.len()).filter(is_first).map(move |at| pages[at]).map(|(pa, attributes)| {
            leaves(Va(pa.0), PaRange::new(pa, Pa(pa.0 + PAGE)), attributes, Leaves::Pages, Global::Global)
        })
    }

    /// What the surgery root must translate, on which the boot CPU edits parked: what the live tree
    /// did when it was made.
    pub fn surgery(&self) -> impl Iterator<Item = Expected> {
        image_mapping(self.image, None, Global::Global).chain(fixmap(self.console(), Global::Global))
    }

    fn console(&self) -> impl Iterator<Item = (usize, Pa)> + use<> {
        self.console.into_iter().map(|page| (slot::CONSOLE, page))
    }
}

/// Leaves from `va` on for `memory`.
fn leaves(va: Va, memory: PaRange, attributes: Attributes, leaves: Leaves, global: Global) -> Expected {
    let attributes = Attributes { global: global == Global::Global, ..attributes };
    let content = Content::Leaves { pa: memory.start, attributes, validity: Validity::Valid, leaves };
    Expected { va, len: memory.len(), content, tables: TablePermissions::UNRESTRICTED }
}

/// The image's own mapping, in pages, with the guards of the boot CPU's stacks left out. `changed`
/// has the changes of its data.
fn image_mapping<'c>(
    image: Image,
    changed: Option<&'c ChangedRanges<CHANGED>>,
    global: Global,
) -> impl Iterator<Item = Expected> + 'c {
    let (text, read_only, all) = (image.text(), image.read_only(), image.range());
    let va = move |pa: Pa| image.virtual_address(pa);
    let fixed =
        [(text, Attributes::KERNEL_TEXT), (PaRange::new(text.end, read_only.end), Attributes::KERNEL_RODATA)];
    let fixed = fixed
        .into_iter()
        .map(move |(part, attributes)| leaves(va(part.start), part, attributes, Leaves::Pages, global));
    let [first, second] = guards().map(|guard| image.physical(guard.0 as *const u8));
    let data = [
        PaRange::new(read_only.end, first),
        PaRange::new(Pa(first.0 + PAGE), second),
        PaRange::new(Pa(second.0 + PAGE), all.end),
    ];
    let data = data.into_iter().flat_map(move |part| {
        let changes = changed.into_iter().flat_map(move |changed| changed.parts(part));
        let as_built = [(part, Allowed::DATA)].into_iter().filter(move |_| changed.is_none());
        changes.chain(as_built)
    });
    let as_built = Attributes { global: global == Global::Global, ..Attributes::KERNEL_DATA };
    fixed.chain(data.map(move |(part, allowed)| Expected {
        va: va(part.start),
        len: part.len(),
        content: allowed.content(part.start, Leaves::Pages, as_built),
        tables: TablePermissions::UNRESTRICTED,
    }))
}

/// The fixmap: registers of devices in the slots of `used`, which ascend, and free slots.
fn fixmap(used: impl Iterator<Item = (usize, Pa)>, global: Global) -> impl Iterator<Item = Expected> {
    let mut parts = ArrayVec::<Expected, 8>::new();
    let mut free = FIXMAP;
    let end = Va(FIXMAP.0 + TABLE);
    for (slot, pa) in used.take(3) {
        let va = Va(FIXMAP.0 + slot as u64 * PAGE);
        parts.extend(free_slots(free, va));
        parts.push(leaves(va, PaRange::new(pa, Pa(pa.0 + PAGE)), Attributes::DEVICE, Leaves::Pages, global));
        free = Va(va.0 + PAGE);
    }
    parts.extend(free_slots(free, end));
    parts.into_iter()
}

/// The free slots from `start` to below `end`.
fn free_slots(start: Va, end: Va) -> Option<Expected> {
    let len = end.0 - start.0;
    (len > 0).then_some(Expected {
        va: start,
        len,
        content: Content::FreeSlots,
        tables: TablePermissions::UNRESTRICTED,
    })
}

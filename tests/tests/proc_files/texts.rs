//! Exact texts of a machine with little memory. Node 0's only: what is on node 1 depends on how
//! large the library's own tables are.

use expect_test::expect;
use mm::buddy::Gfp;
use mm::proc;
use mm::system::Memory;
use mm_tests::window::Window;

use super::{order, small, text};

/// The lines before those of node 1.
fn of_node_0(text: &str, node_1: &str) -> String {
    let (node_0, _) = text.split_once(node_1).expect("there is a node 1");
    node_0.to_owned()
}

#[test]
fn buddyinfo() {
    let machine = small();
    let text = || of_node_0(&text(|out| proc::buddyinfo(&machine, out)), "Node 1");
    let fresh = expect![[r#"
        Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 
        Node 0, zone    DMA32      0      0      0      0      0      0      0      0      0      0      2 
        Node 0, zone   Normal      0      0      0      0      0      0      0      0      0      1      1 
    "#]];
    fresh.assert_eq(&text());

    let page = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    let block = machine.alloc_block(Gfp::DMA, order(8)).unwrap();
    let used = expect![[r#"
        Node 0, zone      DMA      0      0      0      0      0      0      0      0      2      2      2 
        Node 0, zone    DMA32      0      0      0      0      0      0      0      0      0      0      2 
        Node 0, zone   Normal      1      1      1      1      1      1      1      1      1      2      0 
    "#]];
    used.assert_eq(&text());

    drop((page, block));
    fresh.assert_eq(&text());
    machine.finish();
}

#[test]
fn pagetypeinfo() {
    let machine = small();
    let page = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    let text = text(|out| proc::pagetypeinfo(&machine, out));
    assert_eq!(
        text.matches("Page block order: 9\n").count(),
        2,
        "once a node"
    );
    let (heading, of_node_0) = text.split_once('\n').unwrap();
    let (of_node_0, _) = of_node_0.split_once(heading).unwrap();
    let expected = expect![[r#"
        Page block order: 9
        Pages per block:  512

        Free pages count per migrate type at order       0      1      2      3      4      5      6      7      8      9     10 
        Node    0, zone      DMA, type    Unmovable      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone      DMA, type      Movable      0      0      0      0      0      0      0      0      1      1      3 
        Node    0, zone      DMA, type  Reclaimable      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone      DMA, type   HighAtomic      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone      DMA, type          CMA      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone      DMA, type      Isolate      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone    DMA32, type    Unmovable      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone    DMA32, type      Movable      0      0      0      0      0      0      0      0      0      0      2 
        Node    0, zone    DMA32, type  Reclaimable      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone    DMA32, type   HighAtomic      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone    DMA32, type          CMA      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone    DMA32, type      Isolate      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone   Normal, type    Unmovable      1      1      1      1      1      1      1      1      1      1      0 
        Node    0, zone   Normal, type      Movable      0      0      0      0      0      0      0      0      0      1      0 
        Node    0, zone   Normal, type  Reclaimable      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone   Normal, type   HighAtomic      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone   Normal, type          CMA      0      0      0      0      0      0      0      0      0      0      0 
        Node    0, zone   Normal, type      Isolate      0      0      0      0      0      0      0      0      0      0      0 

        Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic          CMA      Isolate 
        Node 0, zone      DMA            0            8            0            0            0            0 
        Node 0, zone    DMA32            0           56            0            0            0            0 
        Node 0, zone   Normal            2            1            0            0            0            0 
    "#]];
    expected.assert_eq(&format!("{heading}\n{of_node_0}"));
    drop(page);
    machine.finish();
}

#[test]
fn zoneinfo() {
    let machine = small();
    let page = machine.alloc_block(Gfp::KERNEL, order(0)).unwrap();
    let expected = expect![[r#"
        Node 0, zone      DMA
          pages free     3840
                boost    0
                min      0
                low      0
                high     0
                spanned  3840
                present  3840
                managed  3840
                cma      0
                protection: (0, 0, 0, 0, 0)
              nr_free_pages 3840
              nr_free_pages_blocks 3584
              nr_free_cma  0
              numa_hit     0
              numa_miss    0
              numa_foreign 0
              numa_interleave 0
              numa_local   0
              numa_other   0
          start_pfn:           256
        Node 0, zone    DMA32
          pages free     2048
                boost    0
                min      0
                low      0
                high     0
                spanned  1044480
                present  2048
                managed  2048
                cma      0
                protection: (0, 0, 0, 0, 0)
              nr_free_pages 2048
              nr_free_pages_blocks 2048
              nr_free_cma  0
              numa_hit     0
              numa_miss    0
              numa_foreign 0
              numa_interleave 0
              numa_local   0
              numa_other   0
          start_pfn:           4096
        Node 0, zone   Normal
          pages free     1535
                boost    0
                min      0
                low      0
                high     0
                spanned  1536
                present  1536
                managed  1536
                cma      0
                protection: (0, 0, 0, 0, 0)
              nr_free_pages 1535
              nr_free_pages_blocks 1024
              nr_free_cma  0
              numa_hit     1
              numa_miss    0
              numa_foreign 0
              numa_interleave 0
              numa_local   1
              numa_other   0
          start_pfn:           1048576
        Node 0, zone  Movable
          pages free     0
                boost    0
                min      0
                low      0
                high     0
                spanned  0
                present  0
                managed  0
                cma      0
                protection: (0, 0, 0, 0, 0)
        Node 0, zone   Device
          pages free     0
                boost    0
                min      0
                low      0
                high     0
                spanned  0
                present  0
                managed  0
                cma      0
                protection: (0, 0, 0, 0, 0)
    "#]];
    let text = text(|out| proc::zoneinfo(&machine, out));
    expected.assert_eq(&of_node_0(&text, "Node 1"));
    drop(page);
    machine.finish();
}

#[test]
fn before_memory_is_up_lists_are_empty_and_totals_are_zero() {
    let memory = Memory::new(Window::none());
    for (print, expected) in [
        (text(|out| proc::buddyinfo(&memory, out)), expect![""]),
        (text(|out| proc::pagetypeinfo(&memory, out)), expect![""]),
        (text(|out| proc::zoneinfo(&memory, out)), expect![""]),
        (
            text(|out| proc::meminfo(&memory, out)),
            expect![[r#"
                MemTotal:              0 kB
                MemFree:               0 kB
                MemAvailable:          0 kB
                Buffers:               0 kB
                Cached:                0 kB
                SwapCached:            0 kB
                Active:                0 kB
                Inactive:              0 kB
                SwapTotal:             0 kB
                SwapFree:              0 kB
                Dirty:                 0 kB
                Writeback:             0 kB
                Mapped:                0 kB
                Slab:                  0 kB
                SReclaimable:          0 kB
                SUnreclaim:            0 kB
                PageTables:            0 kB
                Committed_AS:          0 kB
                VmallocTotal:          0 kB
                VmallocUsed:           0 kB
                VmallocChunk:          0 kB
                Percpu:                0 kB
                CmaTotal:              0 kB
                CmaFree:               0 kB
            "#]],
        ),
        (
            text(|out| proc::vmstat(&memory, out)),
            expect![[r#"
                nr_free_pages 0
                nr_free_pages_blocks 0
                nr_free_cma 0
                numa_hit 0
                numa_miss 0
                numa_foreign 0
                numa_interleave 0
                numa_local 0
                numa_other 0
                nr_slab_reclaimable 0
                nr_slab_unreclaimable 0
                nr_page_table_pages 0
                nr_memmap_boot_pages 0
                pgalloc_dma 0
                pgalloc_dma32 0
                pgalloc_normal 0
                pgalloc_movable 0
                allocstall_dma 0
                allocstall_dma32 0
                allocstall_normal 0
                allocstall_movable 0
                pgfree 0
                pgsteal_kswapd 0
                pgsteal_direct 0
                pgscan_kswapd 0
                pgscan_direct 0
                pageoutrun 0
                cma_alloc_success 0
                cma_alloc_fail 0
                nr_tlb_remote_flush 0
                nr_tlb_remote_flush_received 0
                nr_tlb_local_flush_all 0
                nr_tlb_local_flush_one 0
            "#]],
        ),
    ] {
        expected.assert_eq(&print);
    }
}

package capture

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/dnstrace/dnstrace/bpf"
)

// What the programs leave alone: packets, and the memory of processes.

// Offsets in struct __sk_buff (include/uapi/linux/bpf.h) of what a program of a cgroup may
// write to, and the length of it all.
const (
	skbMark, skbPriority, skbControl, skbTimestamp = 8, 32, 48, 152

	skbBytes      = 192
	ethernetBytes = 14
)

// The program of the root cgroup lets every packet pass, crafted and hostile ones, and
// changes none of it, nor what the kernel keeps beside it (BPF_PROG_TEST_RUN).
func TestEveryPacketPasses(t *testing.T) {
	spec, err := newSpec(Config{Ports: []uint16{dport}, RingBytes: 1 << 16}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	if err := prepareSockets(spec, kernel, arrivalCgroup); err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != bpf.DnstraceProgCgroupIngress {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	beside := make([]byte, skbBytes)
	for i, at := range []int{skbMark, skbPriority, skbControl, skbControl + 16, skbTimestamp} {
		binary.NativeEndian.PutUint32(beside[at:], uint32(1000+i))
	}
	passes := func(name string, frame []byte) {
		t.Helper()
		after := make([]byte, skbBytes)
		run := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: bytes.Clone(beside), ContextOut: after}
		verdict, err := coll.Programs[bpf.DnstraceProgCgroupIngress].Run(&run)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// The kernel takes the Ethernet header off before it runs the program, and puts zeros there.
		if verdict != 1 || len(run.DataOut) != len(frame) || !bytes.Equal(run.DataOut[ethernetBytes:], frame[ethernetBytes:]) {
			t.Errorf("%s: verdict %d; of %x it made %x", name, verdict, frame, run.DataOut)
		}
		for _, field := range [][2]int{{skbMark, 4}, {skbPriority, 4}, {skbControl, 20}, {skbTimestamp, 8}} {
			if at, n := field[0], field[1]; !bytes.Equal(after[at:at+n], beside[at:at+n]) {
				t.Errorf("%s: at %d of what is beside it %x became %x", name, at, beside[at:at+n], after[at:at+n])
			}
		}
	}
	for _, tc := range slices.Concat(crafted, edges) {
		for _, f := range tc.frames {
			passes(tc.name, ethernet(uint64(tc.ethertype), f))
		}
	}
	for name, m := range hostileMessages(t) {
		passes(name, ethernet(etherIPv4, plain4.packet(udp(cport, dport, m))))
		passes(name, ethernet(etherIPv6, ipv6("2001:db8::1", "2001:db8::2", 17, udp(cport, dport, m))))
		passes(name, ethernet(etherIPv4, tcp4(tcp(cport, dport, 7, FlagACK, nil, slices.Concat(be(2, uint64(len(m))), m)))))
	}
}

// maxFront is how much is looked at of what a process reads (READ_FRONT in bpf/socket.h).
const maxFront = 64

// Of what a process reads, its front is looked at in its memory, as far as it was written
// there: nothing behind it, nothing that was in the buffer before.
func TestOnlyTheFrontIsRead(t *testing.T) {
	const before = 0xee
	long := append(bytes.Clone(query), bytes.Repeat([]byte("secret"), 60)...)
	for name, way := range arrivalWays() {
		fd, server := boundUDP(t, unix.AF_INET, "127.0.0.1")
		clientFD, _ := boundUDP(t, unix.AF_INET, "127.0.0.1")
		source := openAt(t, way, server.Port())
		if !source.Observes().ReadUDP {
			continue
		}
		for _, m := range [][]byte{query, long} {
			for _, r := range readers {
				buf := bytes.Repeat([]byte{before}, 512)
				if err := unix.Sendto(clientFD, m, 0, sockaddr(server)); err != nil {
					t.Fatal(err)
				}
				if _, err := r.read(fd, buf); err != nil {
					t.Fatalf("%s: %v", r.name, err)
				}
				events := reads(t, source)
				if len(events) != 1 {
					t.Fatalf("%s, %s: %d reads", name, r.name, len(events))
				}
				front := events[0]
				written := bytes.IndexByte(buf, before)
				if len(front) > min(maxFront, written) || !bytes.HasPrefix(m, front) || len(front) == 0 && !r.anonymous && !source.exact() {
					t.Errorf("%s, %s: of %d bytes %d are looked at: %q", name, r.name, written, len(front), front)
				}
			}
		}
	}
}

// reads returns what the events of reading hold of the memory of their readers.
func reads(t *testing.T, s *Source) (fronts [][]byte) {
	t.Helper()
	var rec ringbuf.Record
	for _, r := range s.rings {
		r.SetDeadline(past)
		for r.ReadInto(&rec) == nil {
			e := (*bpf.DnstraceEvent)(unsafe.Pointer(&rec.RawSample[0]))
			if Kind(e.Kind) == Read {
				fronts = append(fronts, bytes.Clone(rec.RawSample[eventSize+int(e.Skip):][:e.Captured]))
			}
		}
	}
	return fronts
}

package capture

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mark is a query that says that everything before it was read.
var mark = append([]byte{0xfe, 0xed}, query[2:]...)

// Frames that every pod can send, through BPF_PROG_TEST_RUN: the eBPF programs report
// them as another parser, which a reader can check against the RFCs, says that they
// should, on the way out as on the way in, and nothing else.
func FuzzFrame(f *testing.F) {
	netns, run := testRun(f)
	source := openIn(f, netns)
	for _, tc := range crafted {
		for _, b := range tc.frames {
			f.Add(ethernet(uint64(tc.ethertype), b))
		}
	}
	for _, m := range hostileMessages(f) {
		f.Add(ethernet(etherIPv4, plain4.packet(udp(cport, dport, m))))
		f.Add(ethernet(etherIPv6, ipv6("2001:db8::1", "2001:db8::2", 17, udp(cport, dport, m))))
		f.Add(ethernet(etherIPv4, tcp4(tcp(cport, dport, 7, FlagACK, nil, m))))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		switch err := run(frame); {
		case errors.Is(err, unix.EINVAL) && (len(frame) < 14+40 || len(frame) > 3000):
			return // the kernel takes no frame without a header, and none beyond a page
		case err != nil:
			t.Fatal(err)
		}
		if err := run(ethernet(etherIPv4, plain4.packet(udp(cport, dport, mark)))); err != nil {
			t.Fatal(err)
		}
		want, got := refer(frame), upToMark(t, source)
		out, in := got[TX], got[RX]
		if !reflect.DeepEqual(out, in) {
			t.Fatalf("on the way out\n%+v\nand in\n%+v", out, in)
		}
		switch {
		case want.later: // seen if the first one was
			if len(out) > 1 || len(out) == 1 && (out[0].Fragment == nil || len(out[0].Payload) > 0) {
				t.Fatalf("of a later fragment %+v", out)
			}
		case !want.seen && len(out) > 0, want.seen && len(out) != 1:
			t.Fatalf("expected %t, got %+v", want.seen, out)
		case want.seen:
			if what := want.agrees(&out[0]); what != "" {
				t.Fatalf("another %s: %+v, icmp %+v\nexpected %+v", what, out[0], out[0].ICMP, want)
			}
		}
	})
}

// upToMark returns what was seen before the mark, without what differs from place to
// place.
func upToMark(t *testing.T, source *Source) map[Kind][]Packet {
	t.Helper()
	got, marks := map[Kind][]Packet{}, 0
	for end := time.Now().Add(time.Minute); marks < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the mark does not come")
		}
		_, err := source.Poll(func(p *Packet) {
			if bytes.Equal(p.Payload, mark) && p.Kind != Drop {
				marks++
				return
			}
			c := *p
			c.Payload = slices.Clone(p.Payload)
			if p.ICMP != nil {
				icmp := *p.ICMP
				icmp.Payload = slices.Clone(icmp.Payload)
				c.ICMP = &icmp
			}
			c.Time, c.SKB, c.Kind, c.PID, c.Comm, c.CgroupID = 0, 0, 0, 0, "", 0
			got[p.Kind] = append(got[p.Kind], c)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return got
}

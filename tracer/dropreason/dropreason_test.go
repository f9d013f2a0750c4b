package dropreason

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cilium/ebpf/btf"
)

// Every reason of the kernel that runs is explained, or it is known that no packet with
// DNS can meet it.
func TestEveryReasonOfThisKernel(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatalf("%v: this test reads what drop reasons the kernel has from its BTF", err)
	}
	known := map[string]bool{}
	for _, list := range Enums {
		var enum *btf.Enum
		if err := spec.TypeByName(list, &enum); err != nil {
			continue
		}
		for _, v := range enum.Values {
			name := Name(v.Name)
			known[name] = true
			_, explained := reasons[name]
			exempt := slices.Contains(notDNS, name) || slices.Contains(Unspecified, name)
			if explained == exempt {
				t.Errorf("%s: explained %t, not met by DNS %t", name, explained, exempt)
			}
		}
	}
	if !known["RECURSION_LIMIT"] { // the newest of the core's: older kernels do not have all
		return
	}
	for name := range reasons {
		if !known[name] && !strings.HasPrefix(name, "QDISC_") && !strings.HasPrefix(name, "OVS_") {
			t.Errorf("this kernel has no reason %s", name)
		}
	}
}

// What is said is one phrase and whole sentences, with commands that somebody can run.
func TestWords(t *testing.T) {
	check := func(name string, r Reason) {
		if r.Description == "" || strings.HasSuffix(r.Description, ".") || strings.Contains(r.Description, "\n") {
			t.Errorf("%s means %q", name, r.Description)
		}
		if utf8.RuneCountInString(r.Advice) > 130 { // as in a finding
			t.Errorf("%s: the advice has %d characters: %s", name, utf8.RuneCountInString(r.Advice), r.Advice)
		}
		if !strings.HasSuffix(r.Advice, ".") || strings.Count(r.Advice, "`")%2 != 0 {
			t.Errorf("%s: advice %q", name, r.Advice)
		}
	}
	for name, r := range reasons {
		check(name, r)
	}
	for name, r := range places {
		check(name, r)
	}
}

func TestOf(t *testing.T) {
	for _, tc := range []struct{ reason, where, words, advice string }{
		{"UDP_CSUM", "__udp4_lib_rcv", "wrong checksum", "ethtool -K"},
		{"IP_RPFILTER", "ip_rcv_finish_core", "reverse path filter", "rp_filter"},
		{"IP_INADDRERRORS", "ip_error", "never forwards", "net.ipv4.ip_forward"},
		{"IP_INHDR", "ip_forward", "TTL", "traceroute"},
		{"IP_INHDR", "ip_rcv_core", "malformed", "tcpdump"},
		{"OTHERHOST", "ip_rcv_core", "another machine's", "ip neigh"},
		{"QDISC_DROP", "__dev_queue_xmit", "carrier", "NO-CARRIER"},
		{"DEV_READY", "__dev_queue_xmit", "device down", "ip link set"},
		{"XFRM_POLICY", "", "IPsec", "ip xfrm"},
		{"PKT_TOO_BIG", "", "MTU", "1232"},
		{"", "neigh_invalidate", "neighbour unresolved", "ip neigh"},
		{"", "ip_rcv_finish_core", "reverse path filter", "rp_filter"},
		{"SOMETHING_NEW", "somewhere", "", "the kernel's source"},
		{"", "", "", "nstat"},
	} {
		if got := Of(tc.reason, tc.where); !strings.Contains(got.Description, tc.words) || (tc.words == "") != (got.Description == "") || !strings.Contains(got.Advice, tc.advice) {
			t.Errorf("%s at %s: %+v", tc.reason, tc.where, got)
		}
	}
}

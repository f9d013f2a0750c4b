// Package feature names what the tests of package onkernel prove of a kernel: what
// the host lists as absent, the kernel compares with what it finds.
package feature

// Feature is one of them, in words.
type Feature string

// What the tracer sees, and what the tests make it see.
const (
	Lookup    Feature = "lookups over UDP"
	TCP       Feature = "lookups over TCP"
	FewestTCP Feature = "TCP with the fewest capabilities"
	Process   Feature = "processes of clients and servers"
	Silent    Feature = "servers that never answer"
	DropPlace Feature = "places of drops"
	Reason    Feature = "reasons of drops"
	ICMP      Feature = "ICMP errors"
	Nftables  Feature = "drops by nftables rules"
	Program   Feature = "drops by netfilter programs"
	IPVS      Feature = "Services of IPVS, masqueraded too"
	Overlay   Feature = "VXLAN and VLAN devices"
	Netkit    Feature = "netkit devices and redirected packets"
	Routes    Feature = "drops for lack of a route"
	Arrival   Feature = "arrival at sockets"
	Reading   Feature = "reading from sockets"
	ClockStep Feature = "a step of the system's time"
)

// All is every one, in the order in which they are shown.
var All = []Feature{Lookup, TCP, FewestTCP, Process, Silent, DropPlace, Reason, ICMP, Nftables, Program, IPVS, Overlay, Netkit, Routes, Arrival, Reading, ClockStep}

// LacksFile is where a virtual machine has the features that its kernel is expected
// to lack, a line each; LacksVariable is how its tests get to know them. A machine
// without is on no list: that of a contributor.
const (
	LacksFile     = "/lacks"
	LacksVariable = "DNSTRACE_TEST_LACKS"
)

// Verdict is how a test says what it found, at the start of a line: then come a
// blank and the feature.
type Verdict string

// The verdicts.
const (
	Proven Verdict = "FEATURE PROVEN"
	Absent Verdict = "FEATURE ABSENT"
)

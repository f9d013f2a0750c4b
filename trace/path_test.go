package trace

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

func samplePath() []Sighting {
	client, service, server := netip.MustParseAddrPort("10.244.0.4:50202"), netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.244.0.2:53")
	pod, host := Device{"n1", 1, "pod", 2, "eth0"}, Device{"n1", 2, "", 7, "veth1"}
	return []Sighting{
		{Device: pod, Message: MessageQuery, Direction: DirectionTX, Src: client, Dst: service},
		{Device: host, Offset: 10, Message: MessageQuery, Direction: DirectionRX, Src: client, Dst: service},
		{Device: host, Offset: 20, Message: MessageQuery, Direction: DirectionTX, Src: client, Dst: server, VLAN: 7},
		{Device: Device{"n1", 3, "dns", 0, ""}, Offset: 30, Message: MessageQuery, Direction: DirectionDelivered, Src: client, Dst: server},
		{Device: Device{"n2", 3, "dns", 0, ""}, Offset: 40, Message: MessageQuery, Direction: DirectionRead, Src: client, Dst: server},
		{Device: host, Offset: 50, Message: MessageResponse, Direction: DirectionRX, Src: server, Dst: client, Tunnel: &Tunnel{Kind: "gre", VNI: 9}},
		{Device: pod, Offset: 60, Message: MessageResponse, Direction: DirectionRX, Src: service, Dst: client},
	}
}

func TestPathKeepsItsSightings(t *testing.T) {
	want := samplePath()
	p := PathOf(want...)
	if p.Len() != len(want) {
		t.Fatalf("%d sightings", p.Len())
	}
	for i, got := range p.All() {
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%d: got %+v, want %+v", i, got, want[i])
		}
	}
	if len(p.devices) != 4 || len(p.envelopes) != 5 {
		t.Errorf("%d devices, %d addresses are kept", len(p.devices), len(p.envelopes))
	}
	if n := unsafe.Sizeof(sighting{}); n != 16 {
		t.Errorf("a sighting takes %d bytes", n)
	}
	c := p.Clone()
	c.Append(want[0])
	p.Reset()
	if p.Len() != 0 || c.Len() != len(want)+1 || !reflect.DeepEqual(c.At(2), want[2]) {
		t.Errorf("the copy is %+v", c)
	}
}

// Whatever a path is, it is read as it was written.
func TestPathsComeBackFromJSON(t *testing.T) {
	steps := samplePath()
	steps = append(steps,
		Sighting{Device: Device{"n1", 1, "renamed", 2, "eth0"}, Message: MessageQuery, Direction: DirectionTX},
		Sighting{Device: Device{"n1", 1, "", 2, "eth0"}, Message: MessageQuery, Direction: DirectionTX},
		Sighting{Device: Device{"n1", 1, "pod", 0, ""}, Message: MessageQuery, Direction: DirectionRead},
		Sighting{Device: Device{"n1", 2, "", 0, ""}, Message: MessageQuery, Direction: DirectionDelivered},
		Sighting{Device: Device{"n1", 2, "", 0, ""}, Message: MessageResponse, Direction: DirectionTX},
	)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		e := &Exchange{Node: "n1"}
		for i := range 1 + rng.IntN(8) {
			s := steps[rng.IntN(len(steps))]
			s.Offset = Seconds(i)
			e.Path.Append(s)
		}
		e.Header = *sampleRecords()[2].Head()
		line := e.AppendJSON(nil)
		got, err := Decode(line)
		if err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		for i, want := range e.Path.All() {
			if s := got.(*Exchange).Path.At(i); !reflect.DeepEqual(s, want) {
				t.Fatalf("sighting %d: got %+v, want %+v\n%s", i, s, want, line)
			}
		}
	}
}

// A member that is left out has the value of the sighting before; null is unknown.
func TestPathInJSON(t *testing.T) {
	const head = `{"v":1,"record":"exchange","time":"2026-11-21T03:00:00Z","trace_id":"6b01090041156cb99fd7e9f79b794954","flow":"41156cb99fd7e9f79b794954",`
	for _, tc := range []struct{ name, path, want string }{
		{"left out", `[{"offset_seconds":0,"message":"query","netns":5,"ifname":"a","direction":"tx"},{"offset_seconds":1}]`, ""},
		{"no message", `[{"offset_seconds":0,"direction":"tx"}]`, "field path: sighting 0: message: expected query or response"},
		{"direction", `[{"offset_seconds":0,"message":"query","direction":"up"}]`, "field path: sighting 0: direction: expected tx, rx, delivered or read"},
		{"no list", `{}`, "field path: expected a list"},
		{"type", `[{"offset_seconds":0,"message":"query","netns":"x"}]`, "field path[0].netns: "},
	} {
		r, err := Decode([]byte(head + `"node":"n1","path":` + tc.path + `}`))
		if tc.want != "" {
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		second := r.(*Exchange).Path.At(1)
		if second.Node != "n1" || second.NetNS != 5 || second.IfName != "a" || second.Direction != DirectionTX || second.Offset.Duration().Seconds() != 1 {
			t.Errorf("%s: %+v", tc.name, second)
		}
	}
}

func TestMilestones(t *testing.T) {
	e := Exchange{Path: PathOf(samplePath()...), Milestones: Milestones{
		Query:    Progress{Left: MilestoneAt(0), Arrived: MilestoneAt(3)},
		Response: Progress{Left: NotObservable, Arrived: MilestoneAt(6)},
	}}
	if p, ok := e.ClientPlace(); !ok || p != (Place{"n1", 1}) {
		t.Errorf("client in %v, %v", p, ok)
	}
	if p, ok := e.ServerPlace(); !ok || p != (Place{"n1", 3}) {
		t.Errorf("server in %v, %v", p, ok)
	}
	if at, ok := e.At(e.Milestones.Response.Arrived); !ok || at.Sub(e.Time) != 60 {
		t.Errorf("arrived at %v, %v", at, ok)
	}
	if _, ok := e.At(e.Milestones.Response.Left); ok {
		t.Error("what is not observable has a time")
	}
	const head = `{"v":1,"record":"exchange","time":"2026-11-21T03:00:00Z","trace_id":"6b01090041156cb99fd7e9f79b794954","flow":"41156cb99fd7e9f79b794954",`
	for text, want := range map[string]string{
		`{"query":{"left":0}}`:            "milestones: there is no sighting 0 in the path",
		`{"query":{"left":-1}}`:           "field milestones.query.left: expected the index of a sighting",
		`{"query":{"left":40000}}`:        "field milestones.query.left: expected the index of a sighting",
		`{"response":{"read":"perhaps"}}`: "field milestones.response.read: expected the index of a sighting",
	} {
		if _, err := Decode([]byte(head + `"milestones":` + text + `}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

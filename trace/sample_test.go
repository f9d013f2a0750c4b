package trace

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// The vectors of the package's documentation.
func TestSampledVectors(t *testing.T) {
	for _, tc := range []struct {
		flow string
		word uint64
	}{
		{"41156cb99fd7e9f79b794954", 0x9b794954},
		{"880ca82742bca2d1c329e410", 0xc329e410},
		{"b248aa3c33ea8e724f089358", 0x4f089358},
	} {
		for _, time := range []string{"00000000", "6acfc000", "6acfc100"} {
			id, err := ParseTraceID(time + tc.flow)
			if err != nil {
				t.Fatal(err)
			}
			passes := float64(tc.word+1) / (1 << 32)
			if !Sampled(id, passes) || Sampled(id, float64(tc.word)/(1<<32)) || !Sampled(id, 1) || Sampled(id, 0) {
				t.Errorf("%s: passes at %v: %v, below: %v", id, passes, Sampled(id, passes), Sampled(id, float64(tc.word)/(1<<32)))
			}
		}
	}
}

func TestSampleThreshold(t *testing.T) {
	for rate, want := range map[float64]uint64{
		0: 0, -1: 0, math.NaN(): 0, 1e-12: 0, 0.01: 42949672, 0.5: 1 << 31, 1 - 1e-12: 1<<32 - 1, 1: 1 << 32, 2: 1 << 32,
	} {
		if got := SampleThreshold(rate); got != want {
			t.Errorf("%v: got %d, want %d", rate, got, want)
		}
	}
}

// The share that is sampled is the rate, within four standard deviations.
func TestSampledShare(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	const n, rate = 100000, 0.01
	passed := 0
	for i := range n {
		var name [8]byte
		binary.BigEndian.PutUint64(name[:], rng.Uint64())
		flow := NewFlow(TransportUDP, netip.MustParseAddrPort("127.0.0.1:53"), uint16(i), 1, 1, name[:])
		if Sampled(TraceID(append(make([]byte, 4), flow[:]...)), rate) {
			passed++
		}
	}
	if dev := math.Sqrt(n * rate * (1 - rate)); math.Abs(float64(passed)-n*rate) > 4*dev {
		t.Errorf("%d of %d at rate %v", passed, n, rate)
	}
}

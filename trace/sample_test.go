package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// samplingVectors are those of the package's documentation.
var samplingVectors = []struct {
	transport      uint8
	id, clientPort uint16
	hash           uint32
}{
	{TransportUDP, 0xc1a1, 50202, 0x405d4d1b},
	{TransportUDP, 0x0000, 1, 0x688990c0},
	{TransportUDP, 0x0001, 0, 0xdcafae10},
	{TransportUDP, 0xffff, 65535, 0x6768824a},
	{TransportTCP, 0xa9ba, 44601, 0x51d32c72},
	{TransportTCP, 0x0000, 44601, 0x51d32c72},
}

func TestSamplingVectors(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range samplingVectors {
		hash := SamplingHash(v.transport, v.id, v.clientPort)
		if hash != v.hash {
			t.Errorf("%+v: got %#08x", v, hash)
		}
		passes := (float64(hash) + 1) / (1 << 32)
		if !Sampled(hash, passes) || Sampled(hash, float64(hash)/(1<<32)) || !Sampled(hash, 1) || Sampled(hash, 0) {
			t.Errorf("%+v: passes at %v: %v, below: %v", v, passes, Sampled(hash, passes), Sampled(hash, float64(hash)/(1<<32)))
		}
		name := map[uint8]string{TransportUDP: "UDP", TransportTCP: "TCP"}[v.transport]
		if line := fmt.Sprintf("%s  id %#04x  port %-5d  %#08x  %.8f...", name, v.id, v.clientPort, v.hash, math.Floor(passes*1e8)/1e8); !strings.Contains(string(doc), line) {
			t.Errorf("the documentation lacks %q", line)
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

// However clients choose IDs and ports, the share that is sampled is the rate, within
// five standard deviations of a random choice.
func TestSampledEvenly(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	port := func() uint16 { return uint16(32768 + rng.IntN(28232)) }
	for name, query := range map[string]func(i int) (id, port uint16){
		"one port, IDs counted up":         func(i int) (uint16, uint16) { return uint16(i), 40000 },
		"one port, random IDs":             func(int) (uint16, uint16) { return uint16(rng.Uint32()), 53 },
		"one ID, ports counted up":         func(i int) (uint16, uint16) { return 0, uint16(i) },
		"one ID, every second port":        func(i int) (uint16, uint16) { return 1, uint16(2 * i) },
		"both counted up":                  func(i int) (uint16, uint16) { return uint16(i), uint16(32768 + i) },
		"IDs up, ports down":               func(i int) (uint16, uint16) { return uint16(i), uint16(60999 - i) },
		"both random":                      func(int) (uint16, uint16) { return uint16(rng.Uint32()), port() },
		"few ports, IDs counted up":        func(i int) (uint16, uint16) { return uint16(i / 4), uint16(40000 + i%4) },
		"IDs with their low byte 0":        func(i int) (uint16, uint16) { return uint16(i << 8), uint16(40000 + i>>8) },
		"ports multiples of 64, random ID": func(i int) (uint16, uint16) { return uint16(rng.Uint32()), uint16(i << 6) },
	} {
		for _, n := range []int{20000, 65536} {
			for _, rate := range []float64{0.001, 0.01, 0.1, 0.5, 0.9} {
				passed := 0
				for i := range n {
					id, port := query(i)
					if Sampled(SamplingHash(TransportUDP, id, port), rate) {
						passed++
					}
				}
				want, deviation := float64(n)*rate, math.Sqrt(float64(n)*rate*(1-rate))
				if math.Abs(float64(passed)-want) > 5*deviation {
					t.Errorf("%s: %d of %d at rate %v", name, passed, n, rate)
				}
			}
		}
	}
}

// The records of both sides of a lookup have one hash, as long as it is known which port
// the server sees.
func TestSamplingHashOfRecords(t *testing.T) {
	translated := uint16(50202)
	udp, tcp := DNS{Protocol: "udp", ID: 0xc1a1, ClientPort: 50202}, DNS{Protocol: "tcp", ID: 0xa9ba, ClientPort: 44601}
	behind := udp
	behind.ClientPort = 1234
	for name, tc := range map[string]struct{ got, want uint32 }{
		"query":               {(&Query{DNS: udp}).SamplingHash(), 0x405d4d1b},
		"query over TCP":      {(&Query{DNS: tcp}).SamplingHash(), 0x51d32c72},
		"exchange":            {(&Exchange{DNS: udp}).SamplingHash(), 0x405d4d1b},
		"exchange over TCP":   {(&Exchange{DNS: tcp}).SamplingHash(), 0x51d32c72},
		"a translated server": {(&Exchange{DNS: udp, NAT: &NAT{}}).SamplingHash(), 0x405d4d1b},
		"a translated client": {(&Exchange{DNS: behind, NAT: &NAT{ClientPort: &translated}}).SamplingHash(), 0x405d4d1b},
		"where it is unknown": {(&Exchange{DNS: behind}).SamplingHash(), SamplingHash(TransportUDP, 0xc1a1, 1234)},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %#08x, want %#08x", name, tc.got, tc.want)
		}
	}
}

package trace

import (
	"fmt"
	"sync"
	"testing"
)

// The texts that are kept are those of the values that they are used for, however
// many others share their place in the memo.
func TestMemoTellsKeysApart(t *testing.T) {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range 20_000 {
				s := Sighting{
					Message: []string{MessageQuery, MessageResponse}[i%2], Direction: []string{DirectionTX, DirectionRX, ""}[i%3],
					NetNS: uint32(i % 7), NetNSName: fmt.Sprint("pod-", i%11), IfIndex: uint32(i % 13), IfName: fmt.Sprint("eth", i%17),
				}
				p := place{s.NetNSName, s.IfName, s.Message, s.Direction, s.NetNS, s.IfIndex}
				if got, want := string(s.appendPlace(nil)), string(encodePlace(nil, p)); got != want {
					t.Errorf("got %s, want %s", got, want)
					return
				}
				e := Endpoint{Pod: fmt.Sprint("pod-", i%11), Process: fmt.Sprint("p", i%3), PID: i % 5000, Service: []string{"", "a/b"}[i%2], Cgroup: "/a"}
				if got, want := string(e.appendJSON(nil)), string(encodeEndpoint(nil, e)); got != want {
					t.Errorf("got %s, want %s", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAppendExchange(b *testing.B) {
	ex := sampleRecords()[2]
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = ex.AppendJSON(line[:0])
	}
}

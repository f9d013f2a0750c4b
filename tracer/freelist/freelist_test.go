package freelist

import "testing"

func TestValuesAreUsedAgain(t *testing.T) {
	var s List[int]
	x := s.Get()
	s.Put(x)
	if s.Get() != x {
		t.Error("what was put is not used again")
	}
	if s.Get() == x {
		t.Error("one value is used twice")
	}
	for range 2 * most {
		s.Put(new(int))
	}
	if s.Len() != most {
		t.Errorf("%d are kept, expected %d", s.Len(), most)
	}
}

// What was needed since the last time is kept, the rest is not.
func TestTrim(t *testing.T) {
	var s List[int]
	for range 100 {
		s.Put(new(int))
	}
	s.Trim() // none of them was there before
	use := func(n int) {
		var taken []*int
		for range n {
			taken = append(taken, s.Get())
		}
		for _, x := range taken {
			s.Put(x)
		}
	}
	for _, tc := range []struct{ used, kept int }{{60, 60}, {10, 10}, {10, 10}, {0, 0}} {
		use(tc.used)
		s.Trim()
		if s.Len() != tc.kept || cap(s.list) > 2*tc.kept {
			t.Errorf("%d were needed: %d are kept, with room for %d", tc.used, s.Len(), cap(s.list))
		}
	}
}

func TestTooLarge(t *testing.T) {
	for _, tc := range []struct {
		room, held int
		want       bool
	}{{0, 0, false}, {4 * Small, 0, false}, {4*Small + 1, 0, true}, {40 * Small, 10 * Small, false}, {41 * Small, 10 * Small, true}} {
		if got := TooLarge(tc.room, tc.held); got != tc.want {
			t.Errorf("room for %d, %d held: %v", tc.room, tc.held, got)
		}
	}
}

func TestCompact(t *testing.T) {
	m := map[int]string{1: "a", 2: "b"}
	smaller := Compact(m)
	m[3] = "c"
	if len(smaller) != 2 || smaller[1] != "a" || smaller[2] != "b" {
		t.Errorf("got %v", smaller)
	}
}

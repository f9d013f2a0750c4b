package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dnstrace/dnstrace/tracer/render"
	"github.com/dnstrace/dnstrace/tracer/top"
)

// redraw is how often a screen is drawn anew.
const redraw = time.Second

// lastMessage keeps the last line of what would disturb a picture on the screen.
type lastMessage struct {
	mu   sync.Mutex
	line string
}

// Write implements io.Writer.
func (m *lastMessage) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	m.line = lines[len(lines)-1]
	return len(b), nil
}

// String returns the line, empty if there was none.
func (m *lastMessage) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.line
}

// board is what top draws, and what its keys change.
type board struct {
	options render.TopOptions
	view    func() top.View
	message func() string
	held    *top.View
	ended   bool // nothing comes any more
}

// run draws until the user quits, ctx ends, or reading fails. At the end of the input it
// goes on showing what was read.
func (b *board) run(ctx context.Context, s *screen, reading <-chan error) error {
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	keys := s.keys
	for {
		if err := b.draw(s); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-reading:
			if err != nil || keys == nil {
				return err
			}
			b.ended, reading = true, nil
		case k, ok := <-keys:
			if !ok {
				keys = nil
			}
			if k == keyQuit {
				return nil
			}
			b.press(k)
		case <-tick.C:
		}
	}
}

func (b *board) press(k key) {
	keys := top.Keys()
	at := slices.Index(keys, b.options.Sort)
	switch k {
	case keyLeft:
		b.options.Sort = keys[(at+len(keys)-1)%len(keys)]
	case keyRight:
		b.options.Sort = keys[(at+1)%len(keys)]
	case keyReverse:
		b.options.Reverse = !b.options.Reverse
	case keyHold:
		if b.held != nil {
			b.held = nil
			return
		}
		v := b.view()
		b.held = &v
	}
}

func (b *board) draw(s *screen) error {
	v := b.view
	if b.held != nil {
		v = func() top.View { return *b.held }
	}
	width, height := s.size()
	b.options.Width, b.options.Height = width, max(height-2, 10)
	now := v()
	var picture strings.Builder
	if err := render.Top(&picture, &now, b.options); err != nil {
		return err
	}
	picture.WriteString("\n" + b.footer())
	return s.show(picture.String())
}

// footer says what keys there are, and how reading fares, in one line.
func (b *board) footer() string {
	text := "q quit  < > sort  r reverse  space hold"
	switch {
	case b.held != nil:
		text += "  HELD"
	case b.ended:
		text += "  END"
	}
	if m := b.message(); m != "" {
		text += "  " + m
	}
	return render.Fit(text, b.options.Width)
}

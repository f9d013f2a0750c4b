package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often the file of a socket is checked, by one system call: a watch of its
// folder (inotify(7)) would not report a folder that is removed or mounted over.
const lookEvery = time.Second

// Keeper binds a socket anew when somebody removed its file: connections go on, but no
// new client would find it. What that takes is the same as at the
// start: no capability, where the folder belongs to the tracer's user.
type Keeper struct {
	path  string
	bind  func() error
	mu    sync.Mutex // guards what follows, and the file itself
	file  os.FileInfo
	ended bool
	state atomic.Pointer[State]
}

// State of a socket's file.
type State struct {
	Rebound uint64 // how often it was bound anew
	Err     error  // why new clients cannot reach the socket; nil: they can
}

// Keep binds a socket at path, by bind, which also takes it into use in the place of
// the one before.
func Keep(path string, bind func() error) (*Keeper, error) {
	k := &Keeper{path: path, bind: bind}
	k.state.Store(&State{})
	return k, k.rebind()
}

// State returns how the socket's file fares.
func (k *Keeper) State() State { return *k.state.Load() }

// Run looks after the file until ctx ends or the socket is closed. It tells of every
// change, once.
func (k *Keeper) Run(ctx context.Context, tell func(what string)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if what := k.look(); what != "" {
				tell(what)
			}
		}
	}
}

// look binds the socket anew if its file is gone, and returns what is news.
func (k *Keeper) look() (news string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return ""
	}
	before := k.State()
	if k.inPlace() {
		if before.Err != nil { // it was there all the time, out of sight
			k.state.Store(&State{Rebound: before.Rebound})
			news = fmt.Sprintf("%s can be reached again", k.path)
		}
		return news
	}
	if err := k.rebind(); err != nil {
		err = fmt.Errorf("%s was removed, and cannot be made again, which is tried every second: %w; in a container, start it anew", k.path, err)
		if before.Err == nil {
			news = err.Error()
		}
		k.state.Store(&State{Rebound: before.Rebound, Err: err})
		return news
	}
	k.state.Store(&State{Rebound: before.Rebound + 1})
	return fmt.Sprintf("%s was removed by somebody: it is made again", k.path)
}

func (k *Keeper) rebind() error {
	if err := k.bind(); err != nil {
		return err
	}
	// The kernel gives the number of a file to no other while its socket is open.
	info, err := os.Lstat(k.path)
	k.file = info
	return err
}

func (k *Keeper) inPlace() bool {
	info, err := os.Lstat(k.path)
	return err == nil && k.file != nil && os.SameFile(info, k.file)
}

// Remove removes the file, unless it is another tracer's by now, and ends the
// looking.
func (k *Keeper) Remove() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = true
	if !k.inPlace() {
		return nil
	}
	if err := os.Remove(k.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

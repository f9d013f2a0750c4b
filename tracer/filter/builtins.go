package filter

import (
	"maps"
	"slices"
	"strings"
)

// builtin says how a function of the language is called so that its cost is counted.
// Those with a condition count a step for each element by themselves.
type builtin struct {
	list  bool   // the first argument is a list, and the function fails without one
	weigh string // the function that counts an argument, which is gone through
	steps int    // of each call beyond that
}

var (
	aList  = builtin{list: true}                                  // which is not gone through, or with a condition
	listed = builtin{list: true, weigh: callWeigh}                // which is, without a condition
	nested = builtin{list: true, weigh: callWeighWhole}           // likewise, with all lists within it
	onText = builtin{weigh: callWeigh}                            // or a number
	parsed = builtin{weigh: callWeigh, steps: 50}                 // what takes a microsecond
	whole  = builtin{weigh: callWeighWhole}                       // whatever is in the argument
	simple = builtin{}                                            // what takes as good as nothing
	sorted = builtin{list: true, weigh: callWeighWhole, steps: 1} // a list that is put in order
)

// builtins are the functions that a filter may use: the cost of each is known from its
// arguments. Functions whose result may be larger (repeat, replace, join, reduce, …), or
// that compare each with each (uniq), are not among them.
var builtins = map[string]builtin{
	"all": aList, "any": aList, "none": aList, "one": aList, "filter": aList, "map": aList, "find": aList, "findIndex": aList,
	"findLast": aList, "findLastIndex": aList, "first": aList, "last": aList,
	"count": listed, "sum": listed, "len": listed, "max": nested, "min": nested, "mean": nested, "median": sorted,
	"lower": onText, "upper": onText, "trim": onText, "trimPrefix": onText, "trimSuffix": onText, "hasPrefix": onText,
	"hasSuffix": onText, "indexOf": onText, "lastIndexOf": onText, "split": onText, "int": onText, "float": onText,
	"string": whole, "date": parsed, "duration": parsed,
	"now": simple, "type": simple, "get": simple, "take": simple, "abs": simple, "ceil": simple, "floor": simple, "round": simple,
}

var builtinNames = strings.Join(slices.Sorted(maps.Keys(builtins)), " ")

package filter

import (
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm/runtime"
)

// patcher rewrites an expression so that null is no error, and notes which of
// the record's fields it names:
//
//	client.namespace      → client?.namespace
//	a < b, a + b          → a function that knows nil
//	any(list, condition)  → any(list ?? [], condition)
//	truncated and …       → (truncated ?? false) and …
type patcher struct {
	uses map[string]bool
}

// Visit implements ast.Visitor; children come before their parents.
func (p *patcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		p.uses[n.Value] = true
	case *ast.MemberNode:
		n.Optional = true
		ast.Patch(node, &ast.ChainNode{Node: n})
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			n.Left, n.Right = orFalse(n.Left), orFalse(n.Right)
		default:
			if _, ok := nullSafe[n.Operator]; ok {
				call := &ast.CallNode{
					Callee:    &ast.IdentifierNode{Value: functionName(n.Operator)},
					Arguments: []ast.Node{n.Left, n.Right},
				}
				ast.Patch(node, call)
			}
		}
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			n.Node = orFalse(n.Node)
		}
	case *ast.PredicateNode:
		n.Node = orFalse(n.Node)
	case *ast.BuiltinNode:
		if len(n.Arguments) > 0 && takesList[n.Name] {
			n.Arguments[0] = &ast.BinaryNode{Operator: "??", Left: n.Arguments[0], Right: &ast.ArrayNode{}}
		}
	}
}

// orFalse makes a field that is null false; other nodes keep their value, in a
// map's or a count's body for example.
func orFalse(n ast.Node) ast.Node {
	switch n.(type) {
	case *ast.ChainNode, *ast.IdentifierNode:
		return &ast.BinaryNode{Operator: "??", Left: n, Right: &ast.BoolNode{Value: false}}
	}
	return n
}

// takesList names the functions of the language whose first argument is a list
// and that fail without one.
var takesList = map[string]bool{
	"all": true, "any": true, "count": true, "filter": true, "find": true, "findIndex": true, "findLast": true,
	"findLastIndex": true, "first": true, "groupBy": true, "last": true, "len": true, "map": true, "max": true,
	"mean": true, "median": true, "min": true, "none": true, "one": true, "reduce": true, "sort": true,
	"sortBy": true, "sum": true,
}

// nullSafe is what an operator does with two operands that are not nil. With a
// nil one a comparison is false, and a sum unknown, which is nil again.
var nullSafe = map[string]struct {
	apply func(a, b any) any
	null  any
}{
	"<":  {func(a, b any) any { return runtime.Less(a, b) }, false},
	"<=": {func(a, b any) any { return runtime.LessOrEqual(a, b) }, false},
	">":  {func(a, b any) any { return runtime.More(a, b) }, false},
	">=": {func(a, b any) any { return runtime.MoreOrEqual(a, b) }, false},
	"+":  {runtime.Add, nil},
	"-":  {runtime.Subtract, nil},
	"*":  {runtime.Multiply, nil},
	"/":  {func(a, b any) any { return runtime.Divide(a, b) }, nil},
}

// functionName is no word of the language, so that only the patcher calls it.
func functionName(operator string) string { return "null-safe " + operator }

func nullSafeFunctions() []expr.Option {
	options := make([]expr.Option, 0, len(nullSafe))
	for operator, op := range nullSafe {
		options = append(options, expr.Function(functionName(operator), func(args ...any) (out any, err error) {
			if runtime.IsNil(args[0]) || runtime.IsNil(args[1]) {
				return op.null, nil
			}
			// The runtime panics on operands that do not fit each other; the
			// message names their types.
			defer func() {
				if r := recover(); r != nil {
					err = fmt.Errorf("%v", r)
				}
			}()
			return op.apply(args[0], args[1]), nil
		}))
	}
	return options
}

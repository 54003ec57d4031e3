;; A contract that counts, calls others, waits, panics and spins.
(module
  (import "env" "read_register" (func $read_register (param i64 i64)))
  (import "env" "register_len" (func $register_len (param i64) (result i64)))
  (import "env" "input" (func $input (param i64)))
  (import "env" "current_account_id" (func $current_account_id (param i64)))
  (import "env" "prepaid_gas" (func $prepaid_gas (result i64)))
  (import "env" "used_gas" (func $used_gas (result i64)))
  (import "env" "block_timestamp" (func $block_timestamp (result i64)))
  (import "env" "random_seed" (func $random_seed (param i64)))
  (import "env" "storage_usage" (func $storage_usage (result i64)))
  (import "env" "value_return" (func $value_return (param i64 i64)))
  (import "env" "panic_utf8" (func $panic (param i64 i64)))
  (import "env" "log_utf8" (func $log (param i64 i64)))
  (import "env" "storage_write" (func $write (param i64 i64 i64 i64 i64) (result i64)))
  (import "env" "storage_read" (func $read (param i64 i64 i64) (result i64)))
  (import "env" "storage_remove" (func $remove (param i64 i64 i64) (result i64)))
  (import "env" "promise_create"
    (func $promise_create (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
  (import "env" "promise_then"
    (func $promise_then (param i64 i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
  (import "env" "promise_return" (func $promise_return (param i64)))
  (import "env" "promise_result" (func $promise_result (param i64 i64) (result i64)))
  (import "env" "promise_batch_create" (func $batch (param i64 i64) (result i64)))
  (import "env" "promise_batch_action_transfer" (func $batch_transfer (param i64 i64)))
  (import "env" "promise_batch_action_function_call_weight"
    (func $batch_call (param i64 i64 i64 i64 i64 i64 i64 i64)))
  (import "env" "promise_yield_create"
    (func $yield_create (param i64 i64 i64 i64 i64 i64 i64) (result i64)))
  (import "env" "promise_yield_resume" (func $yield_resume (param i64 i64 i64 i64) (result i32)))

  (memory (export "memory") 4)
  (data (i32.const 0) "counter")
  (data (i32.const 32) "failed on purpose")
  (data (i32.const 64) "add")
  (data (i32.const 80) "fail")
  (data (i32.const 96) "done")
  (data (i32.const 112) "deep")
  (data (i32.const 128) "waiting")
  (data (i32.const 144) "yes")
  (data (i32.const 160) "no")
  (data (i32.const 176) "report")
  ;; 16: the counter. 256: amounts. 1024: the input. 2048: this account. 4096: results.

  (func $load
    (i32.store8 (i32.const 16) (i32.const 0))
    (if (i64.eq (call $read (i64.const 7) (i64.const 0) (i64.const 0)) (i64.const 1))
      (then (call $read_register (i64.const 0) (i64.const 16)))))
  (func $increment
    (call $load)
    (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (i32.const 1)))
    (drop (call $write (i64.const 7) (i64.const 0) (i64.const 1) (i64.const 16) (i64.const 1))))
  (func $load_input (result i64)
    (call $input (i64.const 1))
    (call $read_register (i64.const 1) (i64.const 1024))
    (call $register_len (i64.const 1)))
  (func $load_self (result i64)
    (call $current_account_id (i64.const 2))
    (call $read_register (i64.const 2) (i64.const 2048))
    (call $register_len (i64.const 2)))

  (func (export "add") (call $increment) (call $log (i64.const 3) (i64.const 64)))
  (func (export "get") (call $load) (call $value_return (i64.const 1) (i64.const 16)))
  (func (export "fail") (call $increment) (call $panic (i64.const 17) (i64.const 32)))
  (func (export "spin") (loop $forever (br $forever)))
  (func (export "echo") (call $value_return (call $load_input) (i64.const 1024)))
  (func (export "time")
    (i64.store (i32.const 4096) (call $block_timestamp))
    (call $value_return (i64.const 8) (i64.const 4096)))
  (func (export "usage")
    (i64.store (i32.const 4096) (call $storage_usage))
    (call $value_return (i64.const 8) (i64.const 4096)))
  (func (export "random")
    (call $random_seed (i64.const 3))
    (call $read_register (i64.const 3) (i64.const 4096))
    (call $value_return (i64.const 32) (i64.const 4096)))
  ;; Stores 64 KiB under a key of one byte, given as input.
  (func (export "hoard")
    (drop (call $load_input))
    (drop (call $write (i64.const 1) (i64.const 1024) (i64.const 65536) (i64.const 0) (i64.const 1))))

  ;; Reads the values under the keys 0, 1, .. below the byte given as input.
  (func $survey
    (local $key i32)
    (local.set $key (i32.const 0))
    (drop (call $load_input))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $key) (i32.load8_u (i32.const 1024))))
        (i32.store8 (i32.const 4096) (local.get $key))
        (drop (call $read (i64.const 1) (i64.const 4096) (i64.const 0)))
        (local.set $key (i32.add (local.get $key) (i32.const 1)))
        (br $next))))
  (func (export "survey") (call $survey))
  ;; The same, after writing them all.
  (func (export "rewrite")
    (local $key i32)
    (local.set $key (i32.const 0))
    (drop (call $load_input))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $key) (i32.load8_u (i32.const 1024))))
        (i32.store8 (i32.const 4096) (local.get $key))
        (drop (call $write (i64.const 1) (i64.const 4096) (i64.const 65536) (i64.const 0) (i64.const 1)))
        (local.set $key (i32.add (local.get $key) (i32.const 1)))
        (br $next)))
    (call $survey))
  ;; Removes a key that does not exist as often as the two bytes of the input say.
  (func (export "scrub")
    (local $left i32)
    (drop (call $load_input))
    (local.set $left (i32.load16_u (i32.const 1024)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (drop (call $remove (i64.const 4) (i64.const 96) (i64.const 0)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next))))

  ;; Calls a method of the account named by the input, then reports here.
  (func $relay (param $method_len i64) (param $method i64)
    (local $target i64) (local $self i64)
    (local.set $target (call $load_input))
    (local.set $self (call $load_self))
    (call $promise_return
      (call $promise_then
        (call $promise_create
          (local.get $target) (i64.const 1024) (local.get $method_len) (local.get $method)
          (i64.const 0) (i64.const 0) (i64.const 256) (i64.const 20000000000000))
        (local.get $self) (i64.const 2048) (i64.const 4) (i64.const 96)
        (i64.const 0) (i64.const 0) (i64.const 256) (i64.const 20000000000000))))
  (func (export "relay") (call $relay (i64.const 3) (i64.const 64)))
  (func (export "relay_fail")
    ;; One NEAR goes along.
    (i64.store (i32.const 256) (i64.const 2003764205206896640))
    (i64.store (i32.const 264) (i64.const 54210))
    (call $relay (i64.const 4) (i64.const 80)))
  (func (export "done")
    (call $increment)
    (if (i64.eq (call $promise_result (i64.const 0) (i64.const 4)) (i64.const 1))
      (then (call $value_return (i64.const 3) (i64.const 144)))
      (else (call $value_return (i64.const 2) (i64.const 160)))))

  ;; Calls itself as often as the input says, each call from the one before.
  (func (export "deep")
    (drop (call $load_input))
    (if (i32.eqz (i32.load8_u (i32.const 1024)))
      (then (call $value_return (i64.const 3) (i64.const 144)) (return)))
    (i32.store8 (i32.const 1024) (i32.sub (i32.load8_u (i32.const 1024)) (i32.const 1)))
    (call $promise_return
      (call $promise_create
        (call $load_self) (i64.const 2048) (i64.const 4) (i64.const 112)
        (i64.const 1) (i64.const 1024) (i64.const 256)
        (i64.sub (i64.sub (call $prepaid_gas) (call $used_gas)) (i64.const 6000000000000)))))

  ;; Gives all gas that is left to two calls of "report", one part to three.
  (func (export "share")
    (local $self i64) (local $first i64) (local $second i64)
    (local.set $self (call $load_self))
    (local.set $first (call $batch (local.get $self) (i64.const 2048)))
    (call $batch_call (local.get $first) (i64.const 6) (i64.const 176)
      (i64.const 0) (i64.const 0) (i64.const 256) (i64.const 0) (i64.const 1))
    (local.set $second (call $batch (local.get $self) (i64.const 2048)))
    (call $batch_call (local.get $second) (i64.const 6) (i64.const 176)
      (i64.const 0) (i64.const 0) (i64.const 256) (i64.const 0) (i64.const 3))
    (call $promise_return (local.get $second)))
  (func (export "report")
    (i64.store (i32.const 4096) (call $prepaid_gas))
    (call $value_return (i64.const 8) (i64.const 4096)))

  ;; Sends one NEAR to the account named by the input.
  (func (export "pay")
    (local $to i64)
    (i64.store (i32.const 256) (i64.const 2003764205206896640))
    (i64.store (i32.const 264) (i64.const 54210))
    (call $batch_transfer (call $batch (call $load_input) (i64.const 1024)) (i64.const 256)))

  ;; Answers only when "resume" is called, or too much time has passed.
  (func (export "wait")
    (local $promise i64)
    (local.set $promise
      (call $yield_create (i64.const 4) (i64.const 96) (i64.const 0) (i64.const 0)
        (i64.const 20000000000000) (i64.const 0) (i64.const 5)))
    (call $read_register (i64.const 5) (i64.const 4096))
    (drop (call $write (i64.const 7) (i64.const 128) (i64.const 32) (i64.const 4096) (i64.const 6)))
    (call $promise_return (local.get $promise)))
  (func (export "resume")
    (drop (call $read (i64.const 7) (i64.const 128) (i64.const 0)))
    (call $read_register (i64.const 0) (i64.const 4096))
    (i32.store8 (i32.const 4200)
      (call $yield_resume (i64.const 32) (i64.const 4096) (i64.const 3) (i64.const 144)))
    (call $value_return (i64.const 1) (i64.const 4200)))
)

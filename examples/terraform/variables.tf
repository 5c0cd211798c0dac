variable "name" {
  description = "Name of the queue, the roles and the service."
  type        = string
  default     = "entitlement-sync"
}

variable "region" {
  description = "Region of the queue and the service."
  type        = string
}

variable "image" {
  description = "The image with its tag, for example registry.example.com/entitlement-sync:0.1.0."
  type        = string
}

variable "sender_arns" {
  description = "Principals that may send to the queue: those of the source of the events."
  type        = list(string)
}

variable "secret_arn" {
  description = "Secret in Secrets Manager with the JSON keys SERVER_API_KEY and REDIS_PASSWORD."
  type        = string
}

variable "redis_host" {
  description = "Host of the Redis primary."
  type        = string
}

variable "cluster" {
  description = "ECS cluster in which the service runs."
  type        = string
}

variable "subnets" {
  description = "Subnets that can reach SQS, Redis and the Edge API."
  type        = list(string)
}

variable "security_groups" {
  description = "Security groups of the tasks; Redis must allow them."
  type        = list(string)
}

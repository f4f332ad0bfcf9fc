# A shop on Rails: a form with its CSRF token, the session in a cookie, and a message that is shown once.
#
# Nothing in it knows of onlyonce but the tag in the page. Its only argument is a folder for the database; while a file "gate"
# is there, an order takes its time.

ENV['RAILS_ENV'] = 'production'
require 'logger'
require 'action_controller/railtie'
require 'active_record'
require 'puma'
require 'puma/server'

FOLDER = ARGV[0]

class Shop < Rails::Application
  config.root = FOLDER
  config.eager_load = false
  config.logger = Logger.new($stderr, level: Logger::WARN)
  config.secret_key_base = 'of a test' * 8
  config.session_store :cookie_store, key: '_shop'
  config.action_controller.default_protect_from_forgery = true
  config.action_controller.forgery_protection_origin_check = true
  config.action_controller.per_form_csrf_tokens = true
end

ActiveRecord::Base.establish_connection(adapter: 'sqlite3', database: File.join(FOLDER, 'rails.sqlite3'), pool: 16, timeout: 10_000)
ActiveRecord::Schema.verbose = false
ActiveRecord::Schema.define { create_table(:orders) { |table| table.string :name, null: false } }

class Order < ActiveRecord::Base
  validates :name, presence: true, exclusion: { in: ['bad'], message: 'is not known' }
end

class OrdersController < ActionController::Base
  protect_from_forgery with: :exception

  FORM = <<~PAGE
    <!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title>
    <script src="/.onlyonce/form.js" data-forms="form" defer></script></head><body>
    <%= form_with model: @order, url: '/orders', local: true do |form| %>
    <%= form.label :name %> <%= form.text_field :name, id: 'name' %>
    <% @order.errors.full_messages.each do |message| %><p id="error"><%= message %></p><% end %>
    <%= form.submit 'Place order', id: 'save', data: {} %><% end %></body></html>
  PAGE
  SHOWN = <<~PAGE
    <!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title></head><body>
    <% if notice %><p class="flash"><%= notice %></p><% end %><p id="order"><%= @order.id %></p></body></html>
  PAGE

  def new
    @order = Order.new
    render inline: FORM
  end

  def create
    @order = Order.new(params.require(:order).permit(:name))
    return render(inline: FORM, status: :unprocessable_entity) unless @order.save

    sleep 0.02 while File.exist?(File.join(FOLDER, 'gate'))
    redirect_to "/orders/#{@order.id}", notice: "Order #{@order.id} is placed."
  end

  def show
    @order = Order.find(params[:id])
    render inline: SHOWN
  end

  def rows
    render plain: Order.count.to_s
  end
end

Shop.initialize!
Shop.routes.draw do
  resources :orders, only: %i[new create show]
  get '/rows', to: 'orders#rows'
end

server = Puma::Server.new(Shop, Puma::Events.stdio, min_threads: 4, max_threads: 16)
port = server.add_tcp_listener('127.0.0.1', 0).addr[1]
threads = server.run
puts "ready #{port}"
$stdout.flush
threads.join
